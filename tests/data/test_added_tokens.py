"""Added tokens that are not special: the ids are the library's, the text comes back, the rest is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from byte_level import library
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken as TheirToken

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.added_tokens import AddedToken, AddedTokens
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.data.tokenizer_folder import read_folder
from sparsity_lab.data.tokenizers import FolderTokenizerConfig, identity, vocab_size_of

REVIEW = "def f():\n    return 1\n        return 2 <|endoftext|> x"
TOKENS = ("    ", "return", "ab", "abab", "<|", "<|start|>", "日本")


def theirs_with(*tokens: TheirToken | str) -> Any:
    theirs = library(None)
    theirs.add_tokens(list(tokens))
    theirs.encode_special_tokens = True
    return theirs


def read(theirs: Any, folder: Path) -> Tokenizer:
    theirs.save(str(folder / "tokenizer.json"))
    return read_folder(folder)


def test_blanks_and_words_are_the_librarys_ids(tmp_path: Path) -> None:
    theirs = theirs_with("    ", "return")
    ours = read(theirs, tmp_path)
    ids = ours.encode(REVIEW)
    assert ids == theirs.encode(REVIEW).ids
    assert ids.count(300) == 3  # four blanks
    assert ids.count(301) == 2  # "return"
    assert ours.decode(ids) == REVIEW
    assert ours.token(301) == "return"
    assert ours.vocab_size == 302


def test_without_the_library_the_ids_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = theirs_with("    ", "return")
    theirs.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert read_folder(tmp_path).encode(REVIEW) == theirs.encode(REVIEW).ids


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """Ours and theirs of tokens that overlap, of both passes, and special ones among them."""
    theirs = library(None)
    theirs.add_tokens(
        [TheirToken(token, normalized=index % 2 == 0) for index, token in enumerate(TOKENS[:5])]
    )
    theirs.add_special_tokens(["<|start|>"])
    theirs.add_tokens(["日本", "\n\n"])
    theirs.encode_special_tokens = True
    return read(theirs, tmp_path_factory.mktemp("both")), theirs


@given(st.lists(st.sampled_from([*TOKENS, " ", "\n", "a", "b", "<", "|>", "<|endoftext|>"]), max_size=12))
def test_any_mixture_of_tokens_is_encoded_alike(both: tuple[Tokenizer, Any], parts: list[str]) -> None:
    ours, theirs = both
    text = "".join(parts)
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == text
    assert ours.end_of_text not in ids


def test_a_token_that_merges_give_too_keeps_its_id(tmp_path: Path) -> None:
    theirs = library(None)
    names = sorted(theirs.get_vocab())
    word = next(name for name in names if name.isascii() and name.isalpha() and len(name) > 3)
    theirs.add_tokens([word])
    ours = read(theirs, tmp_path)
    for text in (f"x{word}x", f"{word[:-1]} {word}{word}"):
        assert ours.encode(text) == theirs.encode(text).ids
    assert ours.vocab_size == 300


def test_special_tokens_alone_change_nothing(tmp_path: Path) -> None:
    theirs = library(None)
    theirs.add_special_tokens(["<|start|>"])
    ours = read(theirs, tmp_path)
    assert ours.added is None
    assert ours.decode(ours.encode("a<|start|>b")) == "a<|start|>b"
    assert 300 not in ours.encode("a<|start|>b")


def test_it_is_saved_and_read_back(tmp_path: Path, both: tuple[Tokenizer, Any]) -> None:
    ours, _ = both
    ours.save(tmp_path / "tokenizer.json")
    for again in (load_tokenizer(tmp_path / "tokenizer.json"), read_folder(tmp_path)):
        text = "".join(TOKENS) * 2
        assert again.encode(text) == ours.encode(text)
        assert again.vocab_size == ours.vocab_size
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    saved["added_tokens"][0]["content"] = "else"
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"added token 'else': no token of this text has the id"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_what_was_encoded_without_them_is_not_found_again(tmp_path: Path) -> None:
    for name, theirs in (("plain", library(None)), ("added", theirs_with("return"))):
        (tmp_path / name).mkdir()
        theirs.save(str(tmp_path / name / "tokenizer.json"))
    plain, added = (
        identity(FolderTokenizerConfig(path=UserPath(tmp_path / name))) for name in ("plain", "added")
    )
    assert plain.keys() == {"kind", "digests"}
    assert added["added_tokens"] == "split"
    assert vocab_size_of(FolderTokenizerConfig(path=UserPath(tmp_path / "added"))) == 301


@pytest.mark.parametrize("name", ["lstrip", "rstrip", "single_word"])
def test_what_would_lose_text_is_refused_by_name(tmp_path: Path, name: str) -> None:
    theirs = theirs_with(TheirToken("return", **{name: True}))
    with pytest.raises(
        UserError, match=rf"tokenizer.json: added token 'return': {name}: true: allowed: false"
    ):
        read(theirs, tmp_path)
    special = library(None)
    special.add_special_tokens([TheirToken("<mask>", **{name: True})])
    assert read(special, tmp_path).added is None


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        (5, r"added_tokens"),
        ([5], r"added_tokens\.1"),
        ([{"content": "x"}], r"added_tokens\.1\.id: missing"),
        ([{"content": "x", "id": -1}], r"added_tokens\.1\.id: -1"),
        ([{"content": 1, "id": 300}], r"added_tokens\.1\.content: 1"),
        ([{"content": "new", "id": 5}], "token ids must be distinct"),
        ([{"content": "a", "id": 300}], r"added token 'a': no token of this text has the id 300"),
    ],
)
def test_a_malformed_list_is_told(tmp_path: Path, listed: Any, told: str) -> None:
    saved = json.loads(library(None).to_str())
    saved["added_tokens"] = [*saved["added_tokens"], *listed] if isinstance(listed, list) else listed
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=told):
        read_folder(tmp_path)


@pytest.mark.parametrize("token", ["é", "Ġreturn"])
def test_a_token_that_the_library_takes_for_a_byte_is_refused(tmp_path: Path, token: str) -> None:
    """Such a text is how another one is spelled: the library gives it that one's id, and loses the text."""
    with pytest.raises(UserError, match=rf"added token '{token}': no token of this text has the id \d+"):
        read(theirs_with(token), tmp_path)


def test_the_two_passes_by_hand() -> None:
    first = AddedToken(content="bc", id=1, normalized=False)
    second = AddedToken(content="abc", id=2, normalized=True)
    special = AddedToken(content="bcd", id=3, normalized=False, special=True)
    assert list(AddedTokens((first, second)).split("abcabd")) == ["a", 1, "abd"]
    assert list(AddedTokens((second,)).split("xabcabc")) == ["x", 2, 2]
    assert list(AddedTokens((first, special)).split("abcdbc")) == ["abcd", 1]  # the longest match is special
    assert list(AddedTokens((first,)).split("")) == []
