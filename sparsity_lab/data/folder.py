"""`folder`: the user's own text files, identified by content rather than by location."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.documents import Corpus, Document, file_digest, printable_name

TOP_LEVEL = re.compile(r"(?<=\n\n)(?=[^\s)\]}])")  # before an unindented line that follows a blank one


class FolderConfig(Corpus):
    """Text files below a folder, ordered by path. Hidden files and folders are skipped."""

    kind: Literal["folder"] = "folder"
    path: UserPath
    patterns: tuple[str, ...] = Field(default=("**/*",), min_length=1)
    """Files that match one of these globs, relative to `path`."""
    document_kilobytes: int = Field(default=64, ge=1)
    """Longer files are cut into documents at blank lines or line ends."""

    def identity(self) -> dict[str, Any]:
        """Return the config without `path`, and name, size and SHA-256 of each file."""
        root = self._root()
        files = [
            [printable_name(path.relative_to(root)), path.stat().st_size, file_digest(path)]
            for path in self._files()
        ]
        return self.model_dump(mode="json", exclude={"path"}) | {"files": files}

    def documents(self) -> Iterator[Document]:
        """Yield the files in pieces of at most `document_kilobytes` thousand characters."""
        root = self._root()
        for path in self._files():
            for piece in pieces(read_text(path), self.document_kilobytes * 1000):
                yield Document(piece, printable_name(path.relative_to(root)))

    def _root(self) -> Path:
        root = self.path.absolute
        if not root.is_dir():
            raise UserError(f"corpus.path: {self.path}: not a folder")
        return root

    def _files(self) -> list[Path]:
        root = self._root()
        try:
            found = {path for pattern in self.patterns for path in root.glob(pattern) if path.is_file()}
        except (ValueError, NotImplementedError) as error:
            raise UserError(f"corpus.patterns: {', '.join(self.patterns)}: {error}") from None
        shown = [path for path in found if not any(p.startswith(".") for p in path.relative_to(root).parts)]
        if not shown:
            raise UserError(f"corpus.path: {self.path}: no file matches {', '.join(self.patterns)}")
        return sorted(shown, key=lambda path: path.relative_to(root).as_posix())


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        UserError: the file cannot be read, holds a NUL byte (binary), or is not UTF-8.
    """
    where = printable_name(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    if b"\0" in data:
        raise UserError(f"{where}: a binary file (NUL at {data.index(0)}); leave it out with corpus.patterns")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 (byte {error.start}); leave it out with corpus.patterns"
        ) from None


def blocks(text: str, limit: int) -> Iterator[str]:
    """Cut source code into pieces of at most `limit` characters, preferably before top-level statements."""
    piece = ""
    for block in TOP_LEVEL.split(text):
        if piece and len(piece) + len(block) > limit:
            yield from pieces(piece, limit)
            piece = ""
        piece += block
    yield from pieces(piece, limit)


def pieces(text: str, limit: int) -> Iterator[str]:
    """Cut a text into pieces of at most `limit` characters, at a blank line, a line end, or anywhere."""
    start = 0
    while len(text) - start > limit:
        end = start + limit
        for mark in ("\n\n", "\n"):
            found = text.rfind(mark, start, end)
            if found > start:
                end = found + len(mark)
                break
        yield text[start:end]
        start = end
    if text[start:]:
        yield text[start:]
