"""A Lightning logger that writes `metrics.csv`, one file per run, and keeps it intact across resumes."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from sparsity_lab.core.files import write_text
from sparsity_lab.core.metrics import BRIDGING, STEP, TRAINING, VALIDATION
from sparsity_lab.results.record import METRICS_FILE

COLUMNS = tuple(metric.name for metric in TRAINING + BRIDGING + VALIDATION)


class MetricsLog(Logger):
    """Write each call as a row of `folder/metrics.csv` and, if enabled, to W&B.

    A resumed run appends to the same file. Its rows replace the old ones from its first step on.
    """

    def __init__(self, folder: Path, run: Any = None) -> None:
        super().__init__()
        self.path = folder / METRICS_FILE
        self._run = run
        self._opened = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def experiment(self) -> Any:
        """The W&B run, or None."""
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config.yaml` and the record hold the resolved config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row.

        Raises:
            ValueError: a name is not among the training and validation metrics of `core.metrics`.
        """
        row = {name: value for name, value in metrics.items() if name != "epoch"}  # Lightning adds the epoch
        if step is not None:
            row[STEP.name] = step
        if unknown := sorted(row.keys() - set(COLUMNS)):
            raise ValueError(f"{unknown} are not in sparsity_lab.core.metrics; known: {', '.join(COLUMNS)}")
        if not self._opened:
            self._open(int(row.get(STEP.name, 0)))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        if self._run is not None:
            self._run.log(row)

    @rank_zero_only
    def save(self) -> None:
        """Flush the rows so far to disk."""
        if self.path.exists():
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def _open(self, step: int) -> None:
        """Drop the rows from `step` on, and a truncated last row."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]
        kept = [line for line in lines if line[:1].isdigit() and int(line.split(",", 1)[0]) < step]
        write_text(self.path, ",".join(COLUMNS) + "\n" + "".join(kept))
        self._opened = True
