"""Packed tokens: written as read, batches of seed and step alone, corrupt files named."""

import json
import logging
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.paths import UserPath
from sparsity_lab.core.stage import Stage, run_stage
from sparsity_lab.data import tokenizer as tokenizer_module
from sparsity_lab.data.folder import FolderConfig
from sparsity_lab.data.packed import (
    MAX_BIGRAM_VOCAB,
    bigram_counts,
    fixed_windows,
    open_tokens,
    random_batch,
    read_meta,
    token_dtype,
    windows,
    write_tokens,
)
from sparsity_lab.data.prepare import (
    COMPOSITION,
    Progress,
    corpus_folder,
    prepare,
    read_documents,
    tokens_folder,
)
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.data.tokenizers import BpeConfig

TOKENS = np.arange(1000, dtype=np.uint16)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tokens of some thirty short documents."""
    root = tmp_path_factory.mktemp("data")
    (root / "texts").mkdir()
    for i in range(30):
        text = "".join(f"def area_{j}(width):\n    return width * {i}\n" for j in range(i, i + 8))
        (root / "texts" / f"{i}.txt").write_text(text, encoding="utf-8")
    corpus = FolderConfig(path=UserPath(root / "texts"), validation_share=0.3)
    return prepare(corpus, BpeConfig(vocab_size=280), root)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The same folder, to spoil."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# --- what is written


def test_the_folder_holds_every_document_in_order(folder: Path) -> None:
    root = folder.parent.parent
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    (corpus,) = (path for path in (root / "corpora").iterdir() if path.is_dir())
    meta = read_meta(folder)
    assert (meta.vocab_size, meta.end_of_text, meta.dtype) == (280, 279, "uint16")
    for split in ("train", "validation"):
        texts = [document.text for document in read_documents(corpus, split)]
        packed = open_tokens(folder, split)
        assert tokenizer.decode(packed.tokens.tolist()) == "".join(f"{text}<|endoftext|>" for text in texts)
        assert int((packed.tokens == packed.end_of_text).sum()) == len(texts) > 0
        assert (packed.vocab_size, len(packed)) == (280, len(packed.tokens))


def test_prepared_again_it_is_the_same_to_the_byte(folder: Path, tmp_path: Path) -> None:
    corpus = FolderConfig(path=UserPath(folder.parent.parent / "texts"), validation_share=0.3)
    again = prepare(corpus, BpeConfig(vocab_size=280), tmp_path)
    assert again.name == folder.name
    for file in folder.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()


def test_another_tokenizer_shares_the_corpus(folder: Path) -> None:
    root = folder.parent.parent
    corpus = FolderConfig(path=UserPath(root / "texts"), validation_share=0.3)
    before = corpus_folder(corpus, root)
    other = prepare(corpus, BpeConfig(vocab_size=270), root)
    assert other != folder
    assert [path for path in (root / "corpora").iterdir() if path.is_dir()] == [before]


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    assert (token_dtype(2**16), token_dtype(2**16 + 1)) == ("uint16", "uint32")
    meta = write_tokens(tmp_path / "x.bin", [[70_000, 1], []], "uint32", 2**16)
    assert (meta.tokens, meta.documents) == (4, 2)
    assert np.fromfile(tmp_path / "x.bin", dtype="<u4").tolist() == [70_000, 1, 2**16, 2**16]


def test_progress_is_logged_but_not_often(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rare, often = Progress("rare", interval=3600), Progress("often", interval=0)
        for progress in (rare, often):
            progress.add(1_000_000)
            progress.add(2_500_000)
            progress.done()
    assert sum(record.message.startswith("rare") for record in caplog.records) == 2
    assert [record.message.split(",")[0] for record in caplog.records if "often:" in record.message] == [
        "often: 1.0 MB",
        "often: 3.5 MB",
        "often: done",
    ]


def test_a_text_that_takes_long_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = threading.Semaphore(0)

    def encode(tokenizer: Tokenizer, text: str) -> list[int]:
        assert all(looks.acquire(timeout=60) for _ in range(3))  # until three looks have been taken
        return [1]

    monkeypatch.setattr(tokenizer_module, "LOOK", 0.01)
    monkeypatch.setattr(Tokenizer, "encode", encode)
    monkeypatch.setattr(Progress, "tick", lambda progress: looks.release())

    def write(folder: Path) -> None:
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text('{"text": "def area(width)", "source": "0"}\n')
        write_json(folder / COMPOSITION, {split: {"text": 15} for split in ("train", "validation")})

    corpus = run_stage(Stage("corpora", "two", 1, {}, write), tmp_path).path
    folder = tokens_folder(corpus, BpeConfig(vocab_size=257), tmp_path)
    assert open_tokens(folder, "train").tokens.tolist() == [1, 256]


# --- corrupt files


def test_a_truncated_file_is_named(copy: Path) -> None:
    data = (copy / "train.bin").read_bytes()
    (copy / "train.bin").write_bytes(data[:-3])
    with pytest.raises(UserError, match=rf"train.bin: {len(data) - 3} bytes, but meta.json says {len(data)}"):
        open_tokens(copy, "train")


def test_a_changed_byte_is_noticed(copy: Path) -> None:
    data = bytearray((copy / "train.bin").read_bytes())
    data[100] ^= 1
    (copy / "train.bin").write_bytes(data)
    with pytest.raises(UserError, match=r"train.bin: corrupt"):
        open_tokens(copy, "train")


def test_missing_files_and_wrong_meta_are_named(copy: Path) -> None:
    (copy / "validation.bin").unlink()
    with pytest.raises(UserError, match=r"validation.bin: no such file"):
        open_tokens(copy, "validation")
    meta = json.loads((copy / "meta.json").read_text())
    (copy / "meta.json").write_text(json.dumps(meta | {"dtype": "int8"}))
    with pytest.raises(UserError, match=r"meta.json.dtype: 'int8'"):
        open_tokens(copy, "train")
    (copy / "meta.json").unlink()
    with pytest.raises(UserError, match=r"meta.json: no such file"):
        open_tokens(copy, "train")


# --- windows and batches


def test_windows_are_slices() -> None:
    found = windows(TOKENS, 4, np.array([0, 7, 995]))
    assert found.dtype == torch.int64
    assert found.tolist() == [[0, 1, 2, 3, 4], [7, 8, 9, 10, 11], [995, 996, 997, 998, 999]]


def test_batches_depend_on_seed_and_step() -> None:
    batch = random_batch(TOKENS, 8, 16, seed=1, step=5)
    assert batch.shape == (16, 9)
    assert torch.equal(batch, batch[:, :1] + torch.arange(9))
    assert torch.equal(batch, random_batch(TOKENS, 8, 16, seed=1, step=5))
    assert not torch.equal(batch, random_batch(TOKENS, 8, 16, seed=1, step=6))
    assert not torch.equal(batch, random_batch(TOKENS, 8, 16, seed=2, step=5))


def test_every_window_is_drawn() -> None:
    starts = {row[0] for step in range(20) for row in random_batch(TOKENS[:12], 8, 16, 0, step).tolist()}
    assert starts == {0, 1, 2, 3}


def test_fixed_windows_are_even_and_reach_both_ends() -> None:
    starts = fixed_windows(TOKENS, 9, 10)[:, 0].tolist()
    assert (starts[0], starts[-1]) == (0, 990)
    assert {after - before for before, after in pairwise(starts)} == {110}


@pytest.mark.parametrize("length", [10, 11, 18, 19, 100, 101])
def test_fixed_windows_of_a_short_split_share_no_prediction(length: int) -> None:
    found = fixed_windows(TOKENS[:length], 9, 500)
    targets = found[:, 1:].flatten().tolist()
    assert len(set(targets)) == len(targets) == 9 * ((length - 1) // 9)


def test_too_long_a_context_is_named() -> None:
    with pytest.raises(UserError) as train:
        random_batch(TOKENS, 1000, 2, 0, 0)
    assert str(train.value) == (
        "model.n_ctx: 1000: too long, the training split has 1000 tokens; "
        "lower model.n_ctx or add text to the corpus"
    )
    assert random_batch(TOKENS, 999, 2, 0, 0).shape == (2, 1000)
    with pytest.raises(UserError) as validation:
        fixed_windows(TOKENS, 1000, 2)
    assert str(validation.value) == (
        "model.n_ctx: 1000: too long, the validation split has 1000 tokens; "
        "lower model.n_ctx, raise corpus.validation_share, or add text to the corpus"
    )


# --- bigrams


@pytest.mark.parametrize("chunk", [7, 1 << 22])
def test_bigram_counts_by_hand(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 5, size=200).astype(np.uint16)
    expected = np.zeros((5, 5), dtype=np.int64)
    for before, after in pairwise(tokens.tolist()):
        expected[before, after] += 1
    monkeypatch.setattr("sparsity_lab.data.packed.BIGRAM_CHUNK", chunk)
    assert np.array_equal(bigram_counts(tokens, 5), expected)


def test_bigram_counts_refuse_what_they_cannot_count() -> None:
    with pytest.raises(UserError, match=r"token id 999: not in the vocabulary of 500"):
        bigram_counts(TOKENS, 500)
    with pytest.raises(UserError, match=r"^model\.bigram: a vocabulary of \d+ .*at most 16384"):
        bigram_counts(TOKENS, MAX_BIGRAM_VOCAB + 1)
