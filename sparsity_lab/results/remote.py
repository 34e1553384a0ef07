"""Read the records of a W&B project's runs from their `record.json` files. Never imports torch."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RECORD, RunRecord, read_record

log = logging.getLogger(__name__)


def read_wandb(project: str, api: Any = None) -> list[RunRecord]:
    """Read the records of all runs of `project` ("entity/project", or "project"), oldest first.

    Runs without a record (running or failed) are skipped; unreadable records are logged and skipped.
    `api` replaces `wandb.Api()` in tests.

    Raises:
        UserError: the project cannot be read.
    """
    import wandb  # local: the analysis of local runs does not need W&B

    try:
        runs = list((api or wandb.Api()).runs(project, order="+created_at"))
        return [record for run in runs if (record := _read(run)) is not None]
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(f"wandb={project}: not readable ({error}); expected wandb=ENTITY/PROJECT") from None


def _read(run: Any) -> RunRecord | None:
    if not (files := list(run.files([RECORD]))):
        return None
    with tempfile.TemporaryDirectory() as folder:
        files[0].download(root=folder, replace=True).close()
        try:
            return read_record(Path(folder) / RECORD)
        except UserError as error:
            log.warning("W&B run %s: %s", run.id, str(error).replace(f"{folder}/", ""))
            return None
