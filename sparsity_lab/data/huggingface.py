"""`huggingface`: a dataset by its name on the hub or by a local path, streamed. `datasets` is an extra."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sparsity_lab.core.errors import UserError
from sparsity_lab.data.documents import MEGABYTE, Corpus, Document, at_most, file_digest


class HuggingFaceConfig(Corpus):
    """One text column of one split.

    A path may be a data file, a folder of data files (JSON lines, Parquet, CSV, text), or what `save_to_disk`
    wrote.
    """

    kind: Literal["huggingface"] = "huggingface"
    name: str
    config_name: str | None = None
    split: str = "train"
    revision: str | None = None
    """A commit of the hub's dataset; without it the newest at the time of reading."""
    text_column: str = "text"
    max_documents: int | None = Field(default=None, ge=1)
    max_megabytes: float = Field(default=200.0, gt=0)

    def identity(self) -> dict[str, Any]:
        """The config; for a local path the content of its files in place of the path."""
        path = self._path()
        if not path.exists():
            return self.model_dump(mode="json")
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        contents = [[file.relative_to(path).as_posix(), file_digest(file)] for file in files]
        return self.model_dump(mode="json", exclude={"name"}) | {"files": contents}

    def documents(self) -> Iterator[Document]:
        """The first documents of the split, empty ones left out."""
        return at_most(self._texts(), self.max_megabytes * MEGABYTE)

    def _path(self) -> Path:
        return Path(self.name).expanduser()

    def _texts(self) -> Iterator[Document]:
        for index, row in enumerate(self._rows()):
            if index == self.max_documents:
                return
            if self.text_column not in row:
                columns = ", ".join(sorted(row))
                raise UserError(f"corpus.text_column: {self.text_column!r}: allowed: {columns}")
            text = row[self.text_column]
            if not isinstance(text, str):
                kind = type(text).__name__
                raise UserError(f"corpus.text_column: {self.text_column!r}: row {index} is {kind}, not text")
            if text:
                yield Document(text, str(index))

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            import datasets
        except ImportError:
            raise UserError(
                "corpus.kind: huggingface needs the datasets library: pip install 'sparsity_lab[huggingface]'"
            ) from None
        try:
            yield from self._load(datasets)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"corpus.name: {self.name}: can't be read as a dataset: {reason}") from None

    def _load(self, datasets: Any) -> Iterable[dict[str, Any]]:
        path = self._path()
        if (path / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(path))
            if self.split not in saved:
                raise UserError(f"corpus.split: {self.split!r}: allowed: {', '.join(saved)}")
            return saved[self.split]
        if (path / "state.json").is_file():
            return datasets.load_from_disk(str(path))
        where: dict[str, Any] = {"path": self.name, "name": self.config_name}
        if path.is_file():
            where = {"path": str(path.parent), "data_files": path.name}
        elif path.is_dir():
            where["path"] = str(path)
        return datasets.load_dataset(**where, split=self.split, revision=self.revision, streaming=True)
