"""`huggingface`: a streamed dataset, by hub name or local path. The `datasets` library is an extra.

Local JSON lines and Parquet files are read by `rows.py`, which loads only the text column. For them the
library only maps a folder's files to splits. It reads all other formats itself.
"""

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.paths import NameOrPath, UserPath
from sparsity_lab.core.shown import printable
from sparsity_lab.data.documents import MEGABYTE, Corpus, Document, at_most, file_digest, printable_name
from sparsity_lab.data.rows import Value, column, is_readable


class HuggingFaceConfig(Corpus):
    """One text column of one split.

    A path may be a data file, a folder of data files (JSON lines, Parquet, CSV, text), or a dataset written
    by `save_to_disk`.
    """

    kind: Literal["huggingface"] = "huggingface"
    name: NameOrPath
    config_name: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit of the hub's dataset; None reads the newest."""
    text_column: str = "text"
    max_documents: int | None = Field(default=None, ge=1)
    max_megabytes: float = Field(default=200.0, gt=0)

    def identity(self) -> dict[str, Any]:
        """Return the config; for a local path, hashes of its files replace the path."""
        path = self._path()
        if not path.exists():
            return self.model_dump(mode="json")
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        contents = [[printable_name(file.relative_to(path)), file_digest(file)] for file in files]
        return self.model_dump(mode="json", exclude={"name"}) | {"files": contents}

    def documents(self) -> Iterator[Document]:
        """Yield the first documents of the split, skipping empty ones."""
        return at_most(self._texts(), self.max_megabytes * MEGABYTE)

    def _path(self) -> Path:
        return UserPath(self.name).absolute

    def _texts(self) -> Iterator[Document]:
        for index, (text, place) in enumerate(self._values()):
            if index == self.max_documents:
                return
            if not isinstance(text, str):
                kind = "null" if text is None else type(text).__name__
                raise UserError(f"corpus.text_column: {self.text_column!r}: {place} is {kind}, not text")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise UserError(
                    f"corpus.text_column: {self.text_column!r}: {place} holds a lone surrogate at position "
                    f"{error.start}, which is not valid Unicode"
                ) from None
            if text:
                yield Document(text, str(index))

    def _values(self) -> Iterator[Value]:
        path = self._path()
        if path.is_file() and is_readable(path):
            self._require_split(["train"])
            return column(path, self.text_column)
        library = _library()
        is_saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        if path.is_dir() and not is_saved and (files := self._readable_files(library)):
            return chain.from_iterable(column(file, self.text_column) for file in files)
        return self._librarys_values(library)

    def _require_split(self, known: list[str]) -> None:
        if self.split not in known:
            raise UserError(f"corpus.split: {self.split!r}: allowed: {', '.join(known)}")

    def _readable_files(self, library: Any) -> list[Path]:
        """Return the split's files in library order if `rows.py` can read all of the folder; else none."""
        with foreign(f"corpus.name: {self.name}: can't be read as a dataset"):
            found = library.load_dataset_builder(str(self._path()), name=self.config_name).config.data_files
            files = {str(split): [Path(file) for file in names] for split, names in (found or {}).items()}
        every = [file for names in files.values() for file in names]
        if not every or not all(file.is_file() and is_readable(file) for file in every):
            return []
        self._require_split(list(files))
        return files[self.split]

    def _librarys_values(self, library: Any) -> Iterator[Value]:
        with foreign(f"corpus.name: {self.name}: can't be read as a dataset"):
            for index, row in enumerate(self._load(library)):
                if self.text_column not in row:
                    columns = printable(", ".join(sorted(row)))
                    raise UserError(f"corpus.text_column: {self.text_column!r}: allowed: {columns}")
                yield Value(row[self.text_column], f"row {index}")

    def _load(self, library: Any) -> Any:
        """Return the rows as dictionaries."""
        path = self._path()
        if (path / "dataset_dict.json").is_file():
            saved = library.load_from_disk(str(path))
            self._require_split(list(saved))
            return saved[self.split]
        if (path / "state.json").is_file():
            return library.load_from_disk(str(path))
        where: dict[str, Any] = {"path": self.name, "name": self.config_name}
        if path.is_file():
            where = {"path": str(path.parent), "data_files": path.name}
        elif path.is_dir():
            where["path"] = str(path)
        return library.load_dataset(**where, split=self.split, revision=self.revision, streaming=True)


def _library() -> Any:
    """Import `datasets` and silence its progress bars and log messages.

    Raises:
        UserError: the library is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            "corpus.kind: huggingface needs the datasets library: pip install 'sparsity_lab[huggingface]'"
        ) from None
    datasets.disable_progress_bars()
    for name in ("datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return datasets
