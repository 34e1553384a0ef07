"""The stages `corpus` and `tokens`, which turn a config into a folder of packed tokens.

1. `corpus_folder` reads every document once (deduplicated by content) and splits them so that both splits
   hold the same mixture: `train.jsonl`, `validation.jsonl`, and `composition.json`, the bytes of each
   component in each split.
2. `tokens_folder` trains or loads the tokenizer and encodes both splits: `tokenizer.json`, `train.bin`,
   `validation.bin`, the component of each validation token in `validation.components.bin`, and `meta.json`.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.stage import Stage, content_hash_of, run_stage
from sparsity_lab.core.waiting import told
from sparsity_lab.data.corpora import CorpusConfig
from sparsity_lab.data.documents import COMPONENTS, MEGABYTE, Document, digest
from sparsity_lab.data.packed import (
    META,
    TOKENIZER,
    Split,
    SplitMeta,
    TokensMeta,
    token_dtype,
    write_components,
    write_tokens,
)
from sparsity_lab.data.split import in_validation, validation_share
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.data.tokenizers import TokenizerConfig, identity, make_tokenizer

log = logging.getLogger(__name__)

CORPUS_VERSION = 3  # raise when the same config would give different documents
TOKENS_VERSION = 3  # raise when the same documents would give different tokens
COMPOSITION = "composition.json"
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
            inputs=_identity(corpus),
            make=partial(_write_corpus, corpus),
        ),
        root,
    ).path


def _identity(corpus: CorpusConfig) -> dict[str, Any]:
    with told(f"corpus {corpus.kind}: reading its files, to know whether it was made before"):
        return corpus.identity()


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


def _write_corpus(corpus: CorpusConfig, folder: Path) -> None:
    progress = Progress(f"corpus {corpus.kind}")
    seen: set[bytes] = set()
    components: list[str] = []
    sizes: list[int] = []
    hashes: list[int] = []
    everything = folder / "documents.jsonl"
    with everything.open("w", encoding="utf-8") as file:
        for document in corpus.documents():
            key = digest(document.text)
            if key in seen or not document.text.strip():
                continue
            seen.add(key)
            if document.component not in COMPONENTS:
                allowed = ", ".join(COMPONENTS)
                raise ValueError(
                    f"{document.source}: unknown component {document.component!r}; allowed: {allowed}"
                )
            components.append(document.component)
            sizes.append(len(document.text.encode("utf-8")))
            hashes.append(int.from_bytes(key[:8], "big"))
            file.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")
            progress.add(sizes[-1])
    if len(sizes) < 2:
        raise UserError(f"corpus: {len(sizes)} documents; at least 2 are needed, to train and to validate on")
    share = validation_share(progress.bytes, corpus.validation_share)
    chosen = in_validation(components, sizes, hashes, share)
    with (
        everything.open(encoding="utf-8") as file,
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "validation.jsonl").open("w", encoding="utf-8") as validation,
    ):
        for line, is_validation in zip(file, chosen, strict=True):
            (validation if is_validation else train).write(line)
    everything.unlink()
    composition: dict[Split, dict[str, int]] = {"train": {}, "validation": {}}
    for component, size, is_validation in zip(components, sizes, chosen, strict=True):
        part = composition["validation" if is_validation else "train"]
        part[component] = part.get(component, 0) + size
    write_json(folder / COMPOSITION, composition)
    progress.done()


def _write_tokens(corpus: Path, config: TokenizerConfig, folder: Path) -> None:
    progress = Progress(f"tokenizer {config.kind}")
    with told(f"tokenizer {config.kind}: learning from the corpus"):
        tokenizer = make_tokenizer(config, _counted(corpus, "train", progress))
    tokenizer.save(folder / TOKENIZER)
    progress.done()
    dtype = token_dtype(tokenizer.vocab_size)
    splits: dict[Split, SplitMeta] = {}
    names = _components(corpus)
    for split in ("train", "validation"):
        progress = Progress(f"tokens {split}")
        lengths: list[int] = []
        encoded = _encoded(tokenizer, _counted(corpus, split, progress), progress)
        meta = write_tokens(
            folder / f"{split}.bin", _measured(encoded, lengths), dtype, tokenizer.end_of_text
        )
        component_of = [names.index(document.component) for document in read_documents(corpus, split)]
        counts = dict.fromkeys(names, 0)
        for component, length in zip(component_of, lengths, strict=True):
            counts[names[component]] += length
        if split == "validation":
            write_components(folder, component_of, lengths)
        splits[split] = meta.model_copy(update={"components": counts})
        progress.done()
    write_json(
        folder / META,
        TokensMeta(
            vocab_size=tokenizer.vocab_size,
            end_of_text=tokenizer.end_of_text,
            dtype=dtype,
            train=splits["train"],
            validation=splits["validation"],
            components=tuple(names),
        ),
    )


def _components(corpus: Path) -> list[str]:
    """The components of a corpus folder, by name."""
    composition = read_json(corpus / COMPOSITION)
    return sorted({component for part in composition.values() for component in part})


def _measured(documents: Iterable[list[int]], lengths: list[int]) -> Iterator[list[int]]:
    """Pass documents on, appending each one's number of tokens with its end to `lengths`."""
    for ids in documents:
        lengths.append(len(ids) + 1)
        yield ids


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
