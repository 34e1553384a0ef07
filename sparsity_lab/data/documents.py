"""The base class of corpora: a config that identifies its content and yields documents in order."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pydantic import Field

from sparsity_lab.core.config import Config
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.metrics import COMPONENTS as MEASURED

MEGABYTE = 1_000_000


TEXT = "text"  # has no loss of its own: such a corpus holds nothing else
COMPONENTS = (*MEASURED, TEXT)


class Document(NamedTuple):
    """A text and its source: a relative path or a number, never an absolute path.

    `component` is the part of the corpus that the document belongs to, one of COMPONENTS: generated programs
    ("grammar"), real source ("real"), or any other text ("text"). The first two have losses of their own.
    """

    text: str
    source: str
    component: str = TEXT


class Corpus(Config):
    """Base of the corpus configs. A new kind is a subclass in its own file, listed in `corpora.py`."""

    validation_share: float = Field(default=0.02, gt=0, lt=1)
    """Share of each component's bytes that goes to validation (`split.py`); raised for small corpora."""

    def identity(self) -> dict[str, Any]:
        """Return everything the documents depend on, as plain JSON; its hash names the corpus."""
        raise NotImplementedError

    def documents(self) -> Iterator[Document]:
        """Yield every document, in an order determined by the identity."""
        raise NotImplementedError


def printable_name(path: PurePath) -> str:
    """Format a path with `/` separators; bytes that are not UTF-8 become `\\xNN`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def digest(text: str) -> bytes:
    """SHA-256 of a text, the key for deduplication, order and split."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{printable_name(path)}: {error.strerror}") from None


def at_most(documents: Iterable[Document], size: float) -> Iterator[Document]:
    """Yield documents until their total size reaches `size` bytes."""
    total = 0
    for document in documents:
        if total >= size:
            return
        yield document
        total += len(document.text.encode("utf-8"))
