"""The tokenizer: exact round trip, determinism, saved and loaded, GPT-2 files, bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data import tokenizer as module
from sparsity_lab.data.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer, train_bpe
from sparsity_lab.data.tokenizer_folder import _parts, gpt2_bytes
from sparsity_lab.data.tokenizers import BpeConfig, FilesConfig, TiktokenConfig, identity, make_tokenizer

TEXTS = [f"def area_{i}(width, height):\n    return width * {i} + height\n\n\n" for i in range(50)]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))  # every code point but surrogates
TRAINED = train_bpe(TEXTS, 300)


@given(UNICODE)
def test_any_text_comes_back(text: str) -> None:
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert all(0 <= id < TRAINED.vocab_size for id in ids)
    assert TRAINED.end_of_text not in ids


@pytest.mark.parametrize(
    "text", [END_OF_TEXT, f"a{END_OF_TEXT}b", "", "\r\n\t ", " " * 2_100_000, "\0\U0010ffff"]
)
def test_awkward_texts_come_back(text: str) -> None:
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert TRAINED.end_of_text not in ids


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UserError, match=r"lone surrogate at position 1"):
        TRAINED.encode("a\ud800")


def test_batches_are_the_texts_one_by_one() -> None:
    assert TRAINED.encode_batch(TEXTS) == [TRAINED.encode(text) for text in TEXTS]
    assert TRAINED.encode_batch([]) == []


def test_trained_vocabulary() -> None:
    assert TRAINED.vocab_size == 300
    assert TRAINED.end_of_text == 299
    assert TRAINED.token(299) == END_OF_TEXT
    assert len(TRAINED.encode(TEXTS[0])) < len(TEXTS[0]) / 3
    assert TRAINED.encode(" return") == [TRAINED.encoding.encode_single_token(" return")]


def test_training_is_deterministic() -> None:
    assert train_bpe(TEXTS, 300).encoding._mergeable_ranks == TRAINED.encoding._mergeable_ranks


def test_at_most_two_digits_make_a_token() -> None:
    tokenizer = train_bpe(["123456 " * 50] * 20, 260)
    assert [tokenizer.token(id) for id in tokenizer.encode("123456")] == ["12", "34", "56"]


def test_tokens_are_shown_safely() -> None:
    (first, second) = TRAINED.encode("\u00e9")
    assert TRAINED.token(first) == "\\xc3"
    assert TRAINED.decode([first]) == "\ufffd"
    assert TRAINED.decode([first, second]) == "\u00e9"


@pytest.mark.parametrize("id", [300, -1, 2**40])
def test_an_unknown_id_is_named(id: int) -> None:
    with pytest.raises(UserError, match=rf"token id {id}: not in the vocabulary of 300"):
        TRAINED.decode([id])


def test_too_small_a_corpus_says_what_it_gives() -> None:
    with pytest.raises(
        UserError, match=r"tokenizer.vocab_size: 2048: the corpus is too small, it gives \d+ at most"
    ):
        train_bpe(["short"], 2048)


def test_training_reads_no_more_than_it_may() -> None:
    read = []

    def texts() -> Any:
        for text in TEXTS:
            read.append(text)
            yield text

    make_tokenizer(BpeConfig(vocab_size=260, train_megabytes=0.001), texts())
    assert 1000 <= sum(map(len, read)) < 1000 + len(TEXTS[0]) + 5


# --- saved and loaded


def test_saved_tokenizer_comes_back(tmp_path: Path) -> None:
    TRAINED.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.encode_batch(TEXTS) == TRAINED.encode_batch(TEXTS)
    assert (loaded.vocab_size, loaded.end_of_text) == (300, 299)
    assert " return" in json.loads((tmp_path / "tokenizer.json").read_text())["ranks"]


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda saved: saved.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("ranks"), "ranks: missing"),
        (lambda saved: saved.update(version=2), "version: 2"),
        (lambda saved: saved["ranks"].pop("a"), "no token for byte 97"),
        (lambda saved: saved["ranks"].update(a=5), "token ids must be distinct"),
        (lambda saved: saved["ranks"].update(a=-1), "token ids must be distinct and between 0"),
        (lambda saved: saved["ranks"].update({"\u20ac": 1000}), "not bytes written as Latin-1"),
        (lambda saved: saved["special_tokens"].clear(), r"no special token <\|endoftext\|>"),
        (lambda saved: saved.update(pattern="("), r"pattern: '\(': not a regular expression"),
    ],
)
def test_a_corrupt_file_gets_one_clear_line(
    tmp_path: Path, spoil: Callable[[Any], Any], message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    TRAINED.save(path)
    saved = json.loads(path.read_text())
    spoil(saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(path)
    assert "tokenizer.json" in str(error.value)


def test_a_missing_or_cut_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match=r"no such file"):
        load_tokenizer(path)
    TRAINED.save(path)
    path.write_text(path.read_text()[:500])
    with pytest.raises(UserError, match=r"not readable as JSON"):
        load_tokenizer(path)


# --- by name


def test_an_encoding_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "gpt2", TRAINED.encoding)  # as if fetched
    assert make_tokenizer(TiktokenConfig(name="gpt2"), []).encode(TEXTS[0]) == TRAINED.encode(TEXTS[0])


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"tokenizer.name: 'gpt9': allowed: .*gpt2"):
        make_tokenizer(TiktokenConfig(name="gpt9"), [])


def test_an_encoding_that_cannot_be_fetched_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", refuse)
    with pytest.raises(UserError, match=r"'gpt2': tiktoken could not fetch it"):
        make_tokenizer(TiktokenConfig(name="gpt2"), [])


# --- GPT-2 files


@pytest.fixture
def pair(tmp_path: Path) -> FilesConfig:
    """The trained tokenizer written as GPT-2 writes one: its bytes in GPT-2's order, then its merges."""
    spelling = {byte: char for char, byte in gpt2_bytes().items()}

    def spell(token: bytes) -> str:
        return "".join(spelling[byte] for byte in token)

    ranks = TRAINED.encoding._mergeable_ranks
    long = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    encoder = {char: i for i, char in enumerate(spelling[byte] for byte in gpt2_bytes().values())}
    merges = ["#version: 0.2"]
    for i, token in enumerate(long):
        encoder[spell(token)] = 256 + i
        merges.append(" ".join(spell(part) for part in _parts(token, ranks)))
    encoder[END_OF_TEXT] = 310  # a gap below it, as in the released tokenizer
    (tmp_path / "vocab.bpe").write_text("\n".join(merges) + "\n", encoding="utf-8")
    (tmp_path / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    return FilesConfig(
        vocab_bpe=UserPath(tmp_path / "vocab.bpe"),
        encoder_json=UserPath(tmp_path / "encoder.json"),
        pattern=module.PATTERN,
    )


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token(id) for id in tokenizer.encode(text)]


def test_files_give_the_tokenizer_they_hold(pair: FilesConfig) -> None:
    loaded = make_tokenizer(pair, [])
    assert (loaded.vocab_size, loaded.end_of_text) == (311, 310)
    assert [tokens(loaded, text) for text in TEXTS] == [tokens(TRAINED, text) for text in TEXTS]
    assert loaded.encode("!") == [0]  # GPT-2's first byte
    with pytest.raises(UserError, match=r"token id 305"):
        loaded.token(305)


def test_files_name_by_content(pair: FilesConfig, tmp_path: Path) -> None:
    before = identity(pair)
    assert str(tmp_path) not in json.dumps(before)
    text = Path(pair.vocab_bpe).read_text(encoding="utf-8")
    Path(pair.vocab_bpe).write_text(text.replace("0.2", "0.3"), encoding="utf-8")
    assert identity(pair) != before


def test_files_that_disagree_or_are_missing_are_named(pair: FilesConfig) -> None:
    vocab = Path(pair.vocab_bpe)
    text = vocab.read_text(encoding="utf-8")
    vocab.write_text("\n".join(text.splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match=r"encoder.json: the ids do not follow the merges"):
        make_tokenizer(pair, [])
    vocab.write_text(text + "a b c\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab.bpe, .*: each merge must be two tokens"):
        make_tokenizer(pair, [])
    Path(pair.encoder_json).write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match=r"encoder.json: must be one JSON object"):
        make_tokenizer(pair, [])
    vocab.unlink()
    with pytest.raises(UserError, match=r"vocab.bpe: No such file"):
        identity(pair)
