"""A folder of records: each job's record is copied there as the job ends, so that it outlives its model.

The record of a job lies in `NAME-HASH/record.json`, beside its training's curve and its seconds. HASH covers
all that the result depends on in config and code (`stages.recorded`). The folder is read like a folder of
runs (`results.runs`). It is small, so it can be committed and taken to another machine, where a sweep does
not compute these jobs again.
"""

from collections.abc import Sequence
from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_text
from sparsity_lab.results.record import RECORD, RunRecord, read_record, write_record


def record_file(folder: Path, name: str, digest: str) -> Path:
    """Return the file of the record of a job with this name and hash."""
    return folder / f"{name}-{digest}" / RECORD


def keep_record(record: RunRecord, path: Path, beside: Sequence[Path] = ()) -> None:
    """Write the copy of a record, unless the same content is there, and of the files that belong to it."""
    for file in beside:
        if file.exists():
            write_text(path.parent / file.name, file.read_text(encoding="utf-8"))
    try:
        if read_record(path) == record:
            return
    except UserError:  # missing or damaged
        pass
    write_record(record, path.parent)
