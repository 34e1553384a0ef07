"""What every corpus is: a config that names itself by its content and reads its documents in order."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pydantic import Field

from sparsity_lab.core.config import Config
from sparsity_lab.core.errors import UserError

MEGABYTE = 1_000_000


class Document(NamedTuple):
    """A text, and where it came from (a relative path or a number: never the machine's own path)."""

    text: str
    source: str


class Corpus(Config):
    """Base of the corpus configs. A new kind is a subclass in its own file, named in `corpora.py`."""

    validation_share: float = Field(default=0.02, gt=0, lt=1)
    """Share of the documents that go to validation, by hash; raised where that gives too few."""

    def identity(self) -> dict[str, Any]:
        """All that the documents depend on, as plain JSON: the corpus is named by its hash, and keeps it."""
        raise NotImplementedError

    def documents(self) -> Iterator[Document]:
        """Every document, in an order that the identity decides."""
        raise NotImplementedError


def printable_name(path: PurePath) -> str:
    """A path with `/` between its parts; bytes of a name that are not UTF-8 are written as `\\xNN`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def digest(text: str) -> bytes:
    """SHA-256 of a text: what deduplication, order and split go by."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{printable_name(path)}: {error.strerror}") from None


def at_most(documents: Iterable[Document], size: float) -> Iterator[Document]:
    """Documents until there are `size` bytes of them."""
    total = 0
    for document in documents:
        if total >= size:
            return
        yield document
        total += len(document.text.encode("utf-8"))
