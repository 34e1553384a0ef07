"""Read the tokenizer of a model folder in any layout, and write it in the released one.

| files | origin |
|---|---|
| `tokenizer.json` | this project (`Tokenizer.save`), or the library `tokenizers` (byte-level BPE) |
| `vocab.bpe`, `encoder.json` | openai/circuit_sparsity; the pattern is not in them |
| `merges.txt`, `vocab.json` | GPT-2 as `transformers` saves it; the pattern is not in them |

The first layout present is read. Added tokens that `transformers` lists in files beside these are read too
(`tokenizer_config.py`). If the library `tokenizers` is installed, the result is compared with the library's
ids on a sample (`tokenizer_check.py`).
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json, write_text
from sparsity_lab.data.added_tokens import AddedToken, read_added_tokens
from sparsity_lab.data.tokenizer import (
    END_OF_TEXT,
    RELEASED_PATTERN,
    Tokenizer,
    checked_tokenizer,
    load_tokenizer,
    read_bytes,
)
from sparsity_lab.data.tokenizer_check import library_of_json, library_of_merges, match_library
from sparsity_lab.data.tokenizer_config import CONFIG, added_beside, files_beside

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# GPT-2's pattern on a text that is first cut around each digit: Digits before ByteLevel
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
JSON = "tokenizer.json"
PAIRS = {("vocab.bpe", "encoder.json"): RELEASED_PATTERN, ("merges.txt", "vocab.json"): GPT2_PATTERN}


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files from which the tokenizer is read.

    Raises:
        UserError: the folder has no tokenizer.
    """
    own = _own_files(folder)
    return own if len(own) == 1 else own + files_beside(folder)


def _own_files(folder: Path) -> list[Path]:
    for names in ((JSON,), *PAIRS):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    known = ", ".join(" and ".join(names) for names in ((JSON,), *PAIRS))
    raise UserError(f"{folder}: holds no tokenizer; allowed: {known}")


def read_folder(folder: Path) -> Tokenizer:
    """Read the tokenizer of a model's folder.

    Raises:
        UserError: the folder has none, or it is not a byte-level encoding that can be read exactly.
    """
    files = _own_files(folder)
    if len(files) == 2:
        merges, ids = files
        return from_files(merges, ids, PAIRS[merges.name, ids.name], added_beside(folder))
    saved = read_json(files[0])
    return _from_json(saved, files[0]) if _is_librarys(saved) else load_tokenizer(files[0])


def splits_at_added(folder: Path) -> bool:
    """Return whether the folder's tokenizer splits texts at added tokens before encoding."""
    files = _own_files(folder)
    if len(files) == 2:
        return any(not token.special for token in added_beside(folder))
    saved: Any = read_json(files[0])
    listed = saved.get("added_tokens") or [] if _is_librarys(saved) else []
    return any(not token.special for token in read_added_tokens(listed, str(files[0])))


def _is_librarys(saved: Any) -> bool:
    return isinstance(saved, dict) and "model" in saved


def from_files(
    vocab_bpe: Path, encoder_json: Path, pattern: str, added: tuple[AddedToken, ...] = ()
) -> Tokenizer:
    """Read GPT-2's layout: merges in order of rank, ids by name, and `added` tokens from elsewhere.

    Raises:
        UserError: a file is missing or is not in this layout.
    """
    lines = read_bytes(vocab_bpe).decode("utf-8", errors="replace").splitlines()
    lines = lines[1:] if lines and lines[0].startswith("#version") else lines
    merges = [line.split(" ") for line in lines if line.strip()]
    encoder = _read_encoder(encoder_json)
    specials = {name: id for name, id in encoder.items() if name in (END_OF_TEXT, "<|startoftext|>")}
    where = f"{vocab_bpe}, {encoder_json}"
    specials |= _outside_merges(added, merges)
    tokenizer = from_merges(encoder, merges, specials, pattern, where, added)
    own_pattern = None if pattern == GPT2_PATTERN else pattern  # None is the library's built-in pattern
    theirs = library_of_merges(encoder, merges, own_pattern, added, where)
    match_library(tokenizer, theirs, [token.content for token in added], where)
    return tokenizer


def _outside_merges(added: tuple[AddedToken, ...], merges: list[list[str]]) -> dict[str, int]:
    """Return the ids of special tokens and of those that no merge gives; others stay ordinary tokens."""
    merged = {"".join(pair) for pair in merges} | gpt2_bytes().keys()
    return {token.content: token.id for token in added if token.special or token.content not in merged}


def from_merges(
    encoder: dict[str, int],
    merges: list[list[str]],
    specials: dict[str, int],
    pattern: str,
    where: str,
    added: tuple[AddedToken, ...] = (),
) -> Tokenizer:
    """Build a tokenizer from ids by name and merges by rank, in GPT-2's spelling of bytes.

    Raises:
        UserError: the input is not a byte-level encoding whose ids follow its merges.
    """
    byte_of = gpt2_bytes()
    try:
        ranks = {
            bytes(byte_of[char] for char in name): id for name, id in encoder.items() if name not in specials
        }
        merged = [bytes(byte_of[char] for char in first + second) for first, second in merges]
    except KeyError as error:
        raise UserError(f"{where}: {error}: not a byte in GPT-2's spelling") from None
    except ValueError as error:
        raise UserError(
            f"{where}: each merge must be two tokens and a space between them ({error})"
        ) from None
    # tiktoken merges in the order of the ids, so the ids must be in the order of the merges
    if [ranks.get(token, -1) for token in merged] != sorted(
        id for token, id in ranks.items() if len(token) > 1
    ):
        raise UserError(f"{where}: the ids do not follow the merges")
    end_of_text = max([*encoder.values(), *specials.values()], default=0) + 1
    return checked_tokenizer(pattern, ranks, {END_OF_TEXT: end_of_text} | specials, where, added)


def _read_encoder(path: Path) -> dict[str, int]:
    encoder = read_json(path)
    if not isinstance(encoder, dict) or not all(type(id) is int for id in encoder.values()):
        raise UserError(f"{path}: must be one JSON object of token: id")
    return encoder


def gpt2_bytes() -> dict[str, int]:
    """Map GPT-2's spelling to bytes: printable Latin-1 as itself, the rest from U+0100 on."""
    plain = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def ids_and_merges(tokenizer: Tokenizer) -> tuple[dict[str, int], list[list[str]]]:
    """Return the ids of ordinary tokens and the merges by rank, in GPT-2's spelling of bytes."""
    char_of = {byte: char for char, byte in gpt2_bytes().items()}
    ranks = tokenizer.encoding._mergeable_ranks
    spelled = {token: "".join(char_of[byte] for byte in token) for token in ranks}
    merges = [
        [spelled[part] for part in _parts(token, ranks)]
        for token in sorted(ranks, key=ranks.__getitem__)
        if len(token) > 1
    ]
    return {spelled[token]: id for token, id in ranks.items()}, merges


def write_pair(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `vocab.bpe` and `encoder.json` like the released models; they do not store the pattern."""
    ids, merges = ids_and_merges(tokenizer)
    write_text(folder / "vocab.bpe", "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    write_json(folder / "encoder.json", ids | dict(tokenizer.encoding._special_tokens))


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the two tokens that merge into `token`, by applying all merges of lower rank to its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        at = joined.index(min(joined))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _from_json(saved: Any, path: Path) -> Tokenizer:
    """Read a `tokenizer.json` of the library `tokenizers`, which must be a plain byte-level BPE."""
    where = str(path)
    model = saved["model"] if isinstance(saved["model"], dict) else {}
    vocab, merges = model.get("vocab"), model.get("merges")
    plain = model.get("type") == "BPE" and not model.get("dropout") and not model.get("ignore_merges")
    if not plain or not isinstance(vocab, dict) or not isinstance(merges, list):
        raise UserError(f"{path}: model: allowed: BPE with vocab and merges")
    if not all(type(id) is int for id in vocab.values()):
        raise UserError(f"{path}: model.vocab: must be one JSON object of token: id")
    if saved.get("normalizer") is not None:
        raise UserError(f"{path}: normalizer: allowed: null")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if not all(isinstance(pair, list) and all(isinstance(part, str) for part in pair) for pair in pairs):
        raise UserError(f"{path}: model.merges: each merge must be two tokens")
    added = read_added_tokens(saved.get("added_tokens") or [], where)
    listed = {(token.content, token.id) for token in added}
    if more := [t for t in added_beside(path.parent) if (t.content, t.id) not in listed]:
        raise UserError(f"{path}: added_tokens: {more[0].content!r} is missing, which {CONFIG} lists")
    own = _outside_merges(added, pairs)
    tokenizer = from_merges(vocab, pairs, own, _pattern(saved.get("pre_tokenizer"), path), where, added)
    match_library(tokenizer, library_of_json(path), [token.content for token in added], where)
    return tokenizer


def _pattern(splitter: Any, path: Path) -> str:
    """Return the regular expression of a pre-tokenizer: ByteLevel, alone or after Split or Digits."""
    steps = splitter.get("pretokenizers", [splitter]) if isinstance(splitter, dict) else []
    steps = steps if isinstance(steps, list) and all(isinstance(step, dict) for step in steps) else []
    levels = [step for step in steps if step.get("type") == "ByteLevel" and not step.get("add_prefix_space")]
    if len(levels) == 1 and steps[-1] is levels[0]:
        if len(steps) == 1 and levels[0].get("use_regex", True):
            return GPT2_PATTERN
        digits = steps[0].get("type") == "Digits" and steps[0].get("individual_digits")
        if len(steps) == 2 and digits and levels[0].get("use_regex", True):
            return DIGITS_PATTERN
        split = {key: steps[0].get(key) for key in ("type", "behavior", "invert")}
        isolated = split == {"type": "Split", "behavior": "Isolated", "invert": False}
        written = steps[0].get("pattern")
        pattern = written.get("Regex") if isolated and isinstance(written, dict) else None
        if len(steps) == 2 and pattern and not levels[0].get("use_regex", True):
            return str(pattern)
    raise UserError(
        f"{path}: pre_tokenizer: allowed: ByteLevel, or Split by Regex (Isolated) and ByteLevel, "
        "or Digits (individual) and ByteLevel"
    )
