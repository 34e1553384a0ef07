"""A Lightning logger that writes `metrics.csv`, one file per run, and keeps it intact across resumes."""

import csv
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from sparsity_lab.core.files import write_text
from sparsity_lab.core.metrics import BRIDGING, STEP, TRAINING, VALIDATION
from sparsity_lab.results.record import METRICS_FILE

Send = Callable[[int, Mapping[str, float]], None]  # the number of a row in the file, and the row
COLUMNS = tuple(metric.name for metric in TRAINING + BRIDGING + VALIDATION)


class MetricsLog(Logger):
    """Write each call as a row of `folder/metrics.csv` and, if enabled, to W&B.

    A resumed run appends to the same file. Its rows replace the old ones from its first step on. Only rank 0
    has one.
    """

    def __init__(self, folder: Path, run: Any = None, send: Send | None = None) -> None:
        super().__init__()
        self.path = folder / METRICS_FILE
        self._run, self._send = run, send
        self._rows: int | None = None  # in the file, once it is open

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

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config.yaml` and the record hold the resolved config."""

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
        if self._rows is None:
            self._rows = self._open(int(row.get(STEP.name, 0)))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        if self._send is not None:
            self._send(self._rows, row)
        self._rows += 1

    def save(self) -> None:
        """Flush the rows so far to disk."""
        if self.path.exists():
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def _open(self, step: int) -> int:
        """Drop the rows from `step` on and a truncated last row; send the others; return their number."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]
        kept = [line for line in lines if line[:1].isdigit() and int(line.split(",", 1)[0]) < step]
        write_text(self.path, ",".join(COLUMNS) + "\n" + "".join(kept))
        if self._send is not None:
            for index, row in enumerate(csv.DictReader(kept, COLUMNS)):
                self._send(index, {name: float(value) for name, value in row.items() if value})
        return len(kept)
