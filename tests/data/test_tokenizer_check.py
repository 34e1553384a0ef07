"""A tokenizer from files is held to the library's ids: patterns, post-processors and merges that differ."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from byte_level import library
from tokenizers import processors
from tokenizers.pre_tokenizers import Digits

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.tokenizer import PATTERN, RELEASED_PATTERN
from sparsity_lab.data.tokenizer_check import SAMPLE
from sparsity_lab.data.tokenizer_folder import read_folder
from sparsity_lab.data.tokenizers import FilesConfig, TiktokenConfig, vocab_size_of

O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def knowing_the_sample(pattern: str | None, before: Any = None) -> Any:
    """A tokenizer whose vocabulary holds every piece of the sample: each boundary shows in the ids."""
    return library(pattern, list(SAMPLE) * 5, 3000, before)


@pytest.mark.parametrize("pattern", [None, PATTERN, RELEASED_PATTERN, O200K, "digits"])
def test_known_patterns_pass(tmp_path: Path, pattern: str | None) -> None:
    if pattern == "digits":  # each digit alone, then GPT-2's pattern in between
        theirs = knowing_the_sample(None, Digits(individual_digits=True))
    else:
        theirs = knowing_the_sample(pattern)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = read_folder(tmp_path)
    for text in SAMPLE:
        assert ours.encode(text) == theirs.encode(text).ids or "<|endoftext|>" in text
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"post_processor": json.loads(processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0)).__getstate__())},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    # in Ruby's syntax, the library's, $ is the end of a line; in tiktoken's that of the text
                    {
                        "type": "Split",
                        "pattern": {"Regex": r" +\S+$|\S+|\s+"},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    {
                        "type": "ByteLevel",
                        "add_prefix_space": False,
                        "trim_offsets": True,
                        "use_regex": False,
                    },
                ],
            }
        },
    ],
)
def test_ids_that_differ_are_refused_with_the_text_and_both(tmp_path: Path, changes: dict[str, Any]) -> None:
    saved = json.loads(knowing_the_sample(None).to_str()) | changes
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError) as error:
        read_folder(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'tokenizer.json'}: can't be read exactly: 'def area(")
    assert "] here, [" in str(error.value)
    assert "\n" not in str(error.value)


def test_merges_of_other_parts_are_refused(tmp_path: Path) -> None:
    theirs = library(None)
    theirs.model.save(str(tmp_path))
    lines = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    last = next(i for i in range(len(lines) - 1, 0, -1) if min(map(len, lines[i].split(" "))) > 1)
    joined = lines[last].replace(" ", "")
    lines[last] = f"{joined[0]} {joined[1:]}"  # the same token, of parts that are never there together
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"merges.txt, .*vocab.json: (can't be read exactly|the tokenizers lib)"
    ):
        read_folder(tmp_path)


def test_a_file_that_the_library_cannot_read_is_refused(tmp_path: Path) -> None:
    saved = json.loads(library(None).to_str()) | {"decoder": {"type": "Unknown"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"tokenizer.json: the tokenizers library can't read it: \w+: "):
        read_folder(tmp_path)


def test_without_the_library_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = json.loads(library(None).to_str()) | {"decoder": {"type": "Unknown"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert read_folder(tmp_path).vocab_size == 300


def test_a_pattern_that_the_library_cannot_read_is_not_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library(None).model.save(str(tmp_path))
    files = FilesConfig(
        vocab_bpe=UserPath(tmp_path / "merges.txt"),
        encoder_json=UserPath(tmp_path / "vocab.json"),
        pattern=r"(?R)x|\s|\S+",
    )
    with caplog.at_level("INFO"):
        try:
            assert vocab_size_of(files) == 300
        except UserError as error:
            pytest.fail(str(error))


def test_the_vocabulary_of_files_is_known_before_a_corpus(tmp_path: Path) -> None:
    library(None).model.save(str(tmp_path))
    files = FilesConfig(
        vocab_bpe=UserPath(tmp_path / "merges.txt"), encoder_json=UserPath(tmp_path / "vocab.json")
    )
    assert vocab_size_of(files) == 300
    assert vocab_size_of(TiktokenConfig(name="gpt2")) is None
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(UserError, match=r"vocab\.json: no such file"):
        vocab_size_of(files)
