"""Read one column of a local JSON lines or Parquet file, row by row, without the other columns.

Each value carries its place for messages: file and line, or file and row.
"""

import bz2
import gzip
import json
import lzma
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.shown import printable
from sparsity_lab.data.documents import printable_name

LINES = (".jsonl", ".ndjson")
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Value(NamedTuple):
    """A row's value in the column, and the row's place in the file."""

    value: Any
    place: str


def is_readable(path: Path) -> bool:
    """Return whether `column` can read the file: JSON lines, `.json` lines or list, or Parquet."""
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    if suffix == ".parquet":
        return path.suffix == suffix and find_spec("pyarrow") is not None
    if suffix in LINES:
        return True
    if suffix != ".json":
        return False
    with foreign(f"corpus.name: {printable_name(path)}"), _open(path) as file:
        first = next((line for line in file if line.strip()), b"{}")
        try:
            return first.lstrip().startswith(b"[") or isinstance(json.loads(first), dict)
        except ValueError:  # one object spread over several lines
            return False


def column(path: Path, name: str) -> Iterator[Value]:
    """Yield the values of a column, top to bottom.

    Raises:
        UserError: the file is damaged, or a row lacks the column.
    """
    where = printable_name(path)
    with foreign(f"corpus.name: {where}: can't be read"):
        if path.suffix == ".parquet":
            yield from _parquet(path, name, where)
        elif _is_list(path):
            yield from _json_list(path, name, where)
        else:
            yield from _json_lines(path, name, where)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, COMPRESSED.get(path.suffix, open)(path, "rb"))


def _is_list(path: Path) -> bool:
    stem = Path(path.stem) if path.suffix in COMPRESSED else path
    if stem.suffix != ".json":
        return False
    with _open(path) as file:
        return next((line for line in file if line.strip()), b"").lstrip().startswith(b"[")


def _json_lines(path: Path, name: str, where: str) -> Iterator[Value]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{where}:{number}"
                yield Value(_member(_parsed(line, place), name, place), place)


def _json_list(path: Path, name: str, where: str) -> Iterator[Value]:
    with _open(path) as file:
        rows = _parsed(file.read(), where)
    for number, row in enumerate(rows):
        place = f"{where}: row {number}"
        yield Value(_member(row, name, place), place)


def _parsed(data: bytes, place: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"corpus.name: {place}: not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"corpus.name: {place}: not JSON ({error})") from None


def _member(row: Any, name: str, place: str) -> Any:
    if not isinstance(row, dict):
        raise UserError(f"corpus.name: {place}: not a JSON object")
    if name not in row:
        allowed = printable(", ".join(sorted(row)))
        raise UserError(f"corpus.text_column: {name!r}: {place} has no such key; allowed: {allowed}")
    return row[name]


def _parquet(path: Path, name: str, where: str) -> Iterator[Value]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if name not in names:
            raise UserError(f"corpus.text_column: {name!r}: allowed: {printable(', '.join(sorted(names)))}")
        number = 0
        for batch in file.iter_batches(columns=[name]):
            for value in batch.column(batch.schema.names.index(name)).to_pylist():
                yield Value(value, f"{where}: row {number}")
                number += 1
