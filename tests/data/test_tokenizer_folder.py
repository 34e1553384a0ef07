"""Tokenizers of models' folders: every layout gives the same ids as what wrote it; others are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from byte_level import TEXTS, library

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.tokenizer import RELEASED_PATTERN, train_bpe
from sparsity_lab.data.tokenizer_folder import GPT2_PATTERN, read_folder, write_pair
from sparsity_lab.data.tokenizers import FolderTokenizerConfig, identity, make_tokenizer

PROBES = [
    *TEXTS[:3],
    "it's 1234 naïve\t  tabs\r\n\n x  ",
    "if x == True:\n        return [1, 22, 333]",
    "日本 'll",
]


@pytest.mark.parametrize("pattern", [None, RELEASED_PATTERN])
def test_a_tokenizer_json_gives_the_librarys_ids(tmp_path: Path, pattern: str | None) -> None:
    theirs = library(pattern)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = read_folder(tmp_path)
    assert ours.encoding._pat_str == (pattern or GPT2_PATTERN)
    for text in PROBES:
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    assert (ours.end_of_text, ours.vocab_size) == (0, 300)


def test_gpt2s_pair_gives_the_librarys_ids(tmp_path: Path) -> None:
    theirs = library(None)
    theirs.model.save(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"merges.txt", "vocab.json"}
    ours = read_folder(tmp_path)
    assert [ours.encode(text) for text in PROBES] == [theirs.encode(text).ids for text in PROBES]


def test_the_released_pair_that_is_written_is_read_back(tmp_path: Path) -> None:
    trained = train_bpe(TEXTS, 300)
    write_pair(trained, tmp_path / "pair")
    again = read_folder(tmp_path / "pair")
    assert again.encoding._mergeable_ranks == trained.encoding._mergeable_ranks
    assert again.encoding._special_tokens == trained.encoding._special_tokens
    assert again.encoding._pat_str == RELEASED_PATTERN  # the pair leaves it out
    trained.save(tmp_path / "pair" / "tokenizer.json")
    assert read_folder(tmp_path / "pair").encoding._pat_str == trained.encoding._pat_str


def test_the_config_names_a_folder_and_its_hash_is_that_of_the_files(tmp_path: Path) -> None:
    trained = train_bpe(TEXTS, 300)
    config = FolderTokenizerConfig(path=UserPath(tmp_path))
    with pytest.raises(
        UserError, match=r"holds no tokenizer; allowed: tokenizer\.json, vocab\.bpe and encoder"
    ):
        identity(config)
    trained.save(tmp_path / "tokenizer.json")
    assert make_tokenizer(config, []).encode(PROBES[0]) == trained.encode(PROBES[0])
    before = identity(config)
    assert str(tmp_path) not in json.dumps(before)
    train_bpe(TEXTS, 290).save(tmp_path / "tokenizer.json")
    assert identity(config) != before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer: allowed: null"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer: allowed: ByteLevel, or Split"),
        ({"pre_tokenizer": None}, "pre_tokenizer: allowed: ByteLevel, or Split"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "pre_tokenizer: allowed"),
        ({"model": {"type": "Unigram"}}, "model: allowed: BPE with vocab and merges"),
    ],
)
def test_what_is_no_plain_byte_level_encoding_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    saved = json.loads(library(None).to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved | changes))
    with pytest.raises(UserError, match=told):
        read_folder(tmp_path)


def test_ids_that_do_not_follow_the_merges_are_refused(tmp_path: Path) -> None:
    saved = json.loads(library(None).to_str())
    saved["model"]["merges"] = saved["model"]["merges"][::-1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="the ids do not follow the merges"):
        read_folder(tmp_path)
