"""Find the runs below a folder by their records."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RECORD, RunRecord, read_record


def read_all(root: Path, on_error: Callable[[UserError], None] | None = None) -> list[tuple[Path, RunRecord]]:
    """Return the runs under `root` as (folder, record), in the order of their paths.

    A folder without a record (a running or interrupted run) is skipped. The error of an unreadable record
    goes to `on_error`, and the other records are still returned.

    Raises:
        UserError: `root` is not a folder, or, without `on_error`, records are unreadable (one line each).
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of runs")
    found: list[tuple[Path, RunRecord]] = []
    errors: list[UserError] = []
    for folder in _run_folders(root):
        try:
            found.append((folder, read_record(folder)))
        except UserError as error:
            (on_error or errors.append)(error)
    if errors:
        raise UserError("\n".join(map(str, errors)))
    return found


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        if RECORD in files:
            yield Path(folder)
            below.clear()  # W&B keeps copies of the record below the run's folder
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "wandb")
