"""What `transformers` keeps beside a tokenizer's own files and adds when it loads them.

| file | what is read |
|---|---|
| `tokenizer_config.json` | `added_tokens_decoder`: id → added token; `add_prefix_space` |
| `added_tokens.json` | token → id, if there is no `added_tokens_decoder` |
| `special_tokens_map.json` | which tokens of `added_tokens.json` are special |
"""

from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.data.added_tokens import AddedToken, read_added_tokens

CONFIG, ADDED, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"


def files_beside(folder: Path) -> list[Path]:
    """Return those of the three files that exist."""
    return [folder / name for name in (CONFIG, ADDED, SPECIAL) if (folder / name).is_file()]


def added_beside(folder: Path) -> tuple[AddedToken, ...]:
    """Return the added tokens that the files in `folder` list.

    Raises:
        UserError: a file is damaged, or asks for something that is not supported.
    """
    config = _object(folder / CONFIG)
    if config.get("add_prefix_space"):
        raise UserError(f"{folder / CONFIG}: add_prefix_space: {config['add_prefix_space']}: allowed: false")
    decoder = config.get("added_tokens_decoder")
    if decoder is not None:
        where = f"{folder / CONFIG}: added_tokens_decoder"
        if not isinstance(decoder, dict) or not all(isinstance(one, dict) for one in decoder.values()):
            raise UserError(f"{where}: must be one JSON object of id: token")
        if wrong := [id for id in decoder if not id.isdecimal()]:
            raise UserError(f"{where}: {wrong[0]!r}: allowed: an id")
        return read_added_tokens([{**one, "id": int(id)} for id, one in decoder.items()], where)
    added = _object(folder / ADDED)
    special = _contents(_object(folder / SPECIAL))
    listed = [{"content": name, "id": id, "special": name in special} for name, id in added.items()]
    return read_added_tokens(listed, str(folder / ADDED))


def _contents(special: Any) -> set[str]:
    """Return the tokens in `special_tokens_map.json`: texts, objects with a text, or lists of these."""
    if isinstance(special, str):
        return {special}
    if isinstance(special, dict) and isinstance(special.get("content"), str):
        return {special["content"]}
    inner = special.values() if isinstance(special, dict) else special if isinstance(special, list) else ()
    return {content for part in inner for content in _contents(part)}


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: must be one JSON object")
    return found
