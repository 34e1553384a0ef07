"""Added tokens in the files that `transformers` keeps beside merges and vocabulary."""

import json
from pathlib import Path
from typing import Any

import pytest
from byte_level import library

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.tokenizer_config import added_beside
from sparsity_lab.data.tokenizer_folder import read_folder, splits_at_added
from sparsity_lab.data.tokenizers import FolderTokenizerConfig, identity

TEXT = "def f():\n    return 1\n        return 2 <|endoftext|> <pad> x"
ENTRY = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def save_pair(folder: Path) -> Any:
    """GPT-2's two files, and the library's tokenizer with four more tokens, two of them ordinary text."""
    from tokenizers import AddedToken

    theirs = library(None)
    theirs.model.save(str(folder))
    theirs.encode_special_tokens = True
    theirs.add_tokens([AddedToken("    ", normalized=False), AddedToken("return", normalized=False)])
    theirs.add_special_tokens(["<pad>"])
    return theirs


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def decoder(*tokens: tuple[int, str, bool]) -> dict[str, Any]:
    listed = {str(id): {"content": content, "special": special, **ENTRY} for id, content, special in tokens}
    return {"added_tokens_decoder": listed}


@pytest.mark.parametrize("layout", ["tokenizer_config.json", "added_tokens.json"])
def test_added_tokens_beside_gpt2s_files_give_the_librarys_ids(tmp_path: Path, layout: str) -> None:
    theirs = save_pair(tmp_path)
    plain = identity(FolderTokenizerConfig(path=UserPath(tmp_path)))
    assert read_folder(tmp_path).encode(TEXT) != theirs.encode(TEXT).ids
    if layout == "tokenizer_config.json":
        tokens = ((300, "    ", False), (301, "return", False), (302, "<pad>", True))
        write(tmp_path, layout, decoder((0, "<|endoftext|>", True), *tokens))
    else:
        write(tmp_path, layout, {"    ": 300, "return": 301, "<pad>": 302})
        write(tmp_path, "special_tokens_map.json", {"pad_token": {"content": "<pad>"}, "more": ["<x>"]})
    ours = read_folder(tmp_path)
    assert ours.encode(TEXT) == theirs.encode(TEXT).ids
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert ours.vocab_size == 303
    assert splits_at_added(tmp_path)
    assert identity(FolderTokenizerConfig(path=UserPath(tmp_path))) != plain


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer_config.json", {"add_prefix_space": True}, "add_prefix_space: True: allowed: false"),
        ("tokenizer_config.json", [1], "tokenizer_config.json: must be one JSON object"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "must be one JSON object of id: token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "'x': allowed: an id"),
        ("tokenizer_config.json", decoder((5, "cat", False)), "token ids must be distinct"),
        ("added_tokens.json", {"cat": "x"}, "id: 'x': input should be a valid integer"),
    ],
)
def test_what_can_not_be_read_is_told(tmp_path: Path, name: str, content: Any, told: str) -> None:
    save_pair(tmp_path)
    write(tmp_path, name, content)
    with pytest.raises(UserError, match=told):
        read_folder(tmp_path)


def test_a_token_that_tokenizer_json_lacks_is_told(tmp_path: Path) -> None:
    theirs = save_pair(tmp_path)
    theirs.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", decoder((301, "return", False)))
    assert read_folder(tmp_path).encode(TEXT) == theirs.encode(TEXT).ids
    write(tmp_path, "tokenizer_config.json", decoder((303, "while", False)))
    told = r"added_tokens: 'while' is missing, which tokenizer_config\.json lists"
    with pytest.raises(UserError, match=told):
        read_folder(tmp_path)


def test_a_folder_without_such_files_has_no_added_tokens(tmp_path: Path) -> None:
    assert added_beside(tmp_path) == ()
