"""The stages `corpus` and `tokens`, which turn a config into a folder of packed tokens.

1. `corpus_folder` reads every document once (deduplicated by content) and splits them by hash:
   `train.jsonl`, `validation.jsonl`, and an inventory of the sources in `about.json`.
2. `tokens_folder` trains or loads the tokenizer and encodes both splits: `tokenizer.json`, `train.bin`,
   `validation.bin`, `meta.json`.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.stage import Stage, content_hash_of, run_stage
from sparsity_lab.data.corpora import CorpusConfig
from sparsity_lab.data.documents import MEGABYTE, Document, digest
from sparsity_lab.data.packed import META, TOKENIZER, Split, SplitMeta, TokensMeta, token_dtype, write_tokens
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.data.tokenizers import TokenizerConfig, identity, make_tokenizer

log = logging.getLogger(__name__)

CORPUS_VERSION = 2  # raise when the same config would give different documents
TOKENS_VERSION = 2  # raise when the same documents would give different tokens
VALIDATION_FLOOR = 250_000  # bytes: some 500 windows of 128 tokens
MAX_FLOOR_SHARE = 0.1  # a small corpus keeps nine tenths for training
ENCODE_BATCH = 2 * MEGABYTE  # bytes encoded between progress checks


def prepare(corpus: CorpusConfig, tokenizer: TokenizerConfig, root: Path) -> Path:
    """Return the folder of a corpus' tokens, making it if it is missing."""
    return tokens_folder(corpus_folder(corpus, root), tokenizer, root)


def corpus_folder(corpus: CorpusConfig, root: Path) -> Path:
    """Make or find `root/corpora/KIND-HASH`; the hash covers everything the documents depend on."""
    return run_stage(
        Stage(
            room="corpora",
            label=corpus.kind,
            version=CORPUS_VERSION,
            inputs=corpus.identity(),
            make=partial(_write_corpus, corpus),
        ),
        root,
    ).path


def tokens_folder(corpus: Path, tokenizer: TokenizerConfig, root: Path) -> Path:
    """Make or find `root/tokens/KIND-HASH` for a finished corpus folder."""
    return run_stage(
        Stage(
            room="tokens",
            label=tokenizer.kind,
            version=TOKENS_VERSION,
            inputs={"corpus": content_hash_of(corpus), "tokenizer": identity(tokenizer)},
            make=partial(_write_tokens, corpus, tokenizer),
        ),
        root,
    ).path


def read_documents(corpus: Path, split: Split) -> Iterator[Document]:
    """Yield the documents of one split of a corpus folder."""
    with (corpus / f"{split}.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield Document(**json.loads(line))


class Progress:
    """Log megabytes done and seconds elapsed, every `interval` seconds and at the end."""

    def __init__(self, what: str, interval: float = 2.0) -> None:
        self.what, self.interval, self.bytes = what, interval, 0
        self.began = self.logged = time.monotonic()
        log.info("%s ...", what)

    def add(self, size: int) -> None:
        """Count bytes, and log if it is time."""
        self.bytes += size
        self.tick()

    def tick(self) -> None:
        """Log if the last message is at least `interval` seconds old."""
        if time.monotonic() - self.logged >= self.interval:
            self.logged = time.monotonic()
            log.info("%s: %.1f MB, %.0f s", self.what, self.bytes / MEGABYTE, self.logged - self.began)

    def done(self) -> None:
        """Log the total."""
        seconds = time.monotonic() - self.began
        log.info("%s: done, %.1f MB, %.1f s", self.what, self.bytes / MEGABYTE, seconds)


def validation_threshold(places: list[float], size: int, share: float) -> float:
    """Return the threshold: documents whose place is at most this go to validation.

    `places` are the hashes of at least two documents, as numbers in [0, 1). `size` is that of the corpus, in
    bytes. The share is raised (up to MAX_FLOOR_SHARE) if it would give less than VALIDATION_FLOOR bytes. Each
    split gets at least one document.
    """
    floor = min(VALIDATION_FLOOR / size, MAX_FLOOR_SHARE)
    ordered = sorted(places)
    return min(max(share, floor, ordered[0]), ordered[-2])


def _write_corpus(corpus: CorpusConfig, folder: Path) -> None:
    progress = Progress(f"corpus {corpus.kind}")
    seen: set[bytes] = set()
    places: list[float] = []
    everything = folder / "documents.jsonl"
    with everything.open("w", encoding="utf-8") as file:
        for document in corpus.documents():
            key = digest(document.text)
            if key in seen or not document.text.strip():
                continue
            seen.add(key)
            places.append(int.from_bytes(key[:6], "big") / 2**48)
            file.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")
            progress.add(len(document.text.encode("utf-8")))
    if len(places) < 2:
        raise UserError(
            f"corpus: {len(places)} documents; at least 2 are needed, to train and to validate on"
        )
    threshold = validation_threshold(places, progress.bytes, corpus.validation_share)
    with (
        everything.open(encoding="utf-8") as file,
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "validation.jsonl").open("w", encoding="utf-8") as validation,
    ):
        for line, place in zip(file, places, strict=True):
            (validation if place <= threshold else train).write(line)
    everything.unlink()
    progress.done()


def _write_tokens(corpus: Path, config: TokenizerConfig, folder: Path) -> None:
    progress = Progress(f"tokenizer {config.kind}")
    tokenizer = make_tokenizer(config, _counted(corpus, "train", progress))
    tokenizer.save(folder / TOKENIZER)
    progress.done()
    dtype = token_dtype(tokenizer.vocab_size)
    splits: dict[Split, SplitMeta] = {}
    for split in ("train", "validation"):
        progress = Progress(f"tokens {split}")
        encoded = _encoded(tokenizer, _counted(corpus, split, progress), progress)
        splits[split] = write_tokens(folder / f"{split}.bin", encoded, dtype, tokenizer.end_of_text)
        progress.done()
    meta = TokensMeta(
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
        dtype=dtype,
        train=splits["train"],
        validation=splits["validation"],
    )
    write_json(folder / META, meta)


def _counted(corpus: Path, split: Split, progress: Progress) -> Iterator[str]:
    for document in read_documents(corpus, split):
        progress.add(len(document.text.encode("utf-8")))
        yield document.text


def _encoded(tokenizer: Tokenizer, texts: Iterable[str], progress: Progress) -> Iterator[list[int]]:
    """Yield the ids of each text, encoded in batches on every core; progress is logged meanwhile."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= ENCODE_BATCH:
            yield from tokenizer.encode_batch(batch, progress.tick)
            batch, size = [], 0
    yield from tokenizer.encode_batch(batch, progress.tick)
