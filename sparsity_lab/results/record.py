"""The record of a run: one JSON file that says what was run, on what code, and what came out. No torch here.

A record is a function of config, code and machine: it holds no clock time and no throughput (those go to
`timings.json` and `metrics.csv`), so that the same run writes the same record to the bit. `SCHEMA_VERSION`
grows when the fields change, and `UPGRADES` then says how to read the version before.
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.core import metrics as names
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.evidence.record import Check

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 3
# n: plain record of schema n → of n + 1; 2 added the tasks' evidence, 3 the formation: older ones have none
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict, 2: dict}

RECORD = "record.json"
PACKAGES = (
    "lightning", "numba", "numpy", "pydantic", "rustbpe", "safetensors", "sparsity_lab", "tiktoken", "torch",
)  # fmt: skip
_NAMES = frozenset(metric.name for metric in names.ALL if metric is not names.THROUGHPUT)

Status = Literal["circuit", "no_circuit", "not_learned", "not_askable", "empty_solves"]


class CurvePoint(Config):
    """The smallest circuit found whose loss on the selection pairs is at or below `target` nats."""

    target: float
    nodes: int
    edges: int
    select: Scores
    test: Scores
    pruned_edges: int | None = None  # left after edge pruning, if that was asked for


class TaskResult(Config):
    """What one model showed on one task.

    `status`: "circuit" (one was found at the main target); "no_circuit" (learned, yet none meets the target);
    "not_learned" (unpruned loss above the target); "not_askable" (the tokenizer cannot pose it);
    "empty_solves" (the circuit without nodes already meets the target). `reason` is one sentence, empty for
    "circuit". `circuit` is the main target's circuit file, relative to the run's folder, and `evidence` the
    checks that were made of that circuit.
    """

    task: str
    status: Status
    reason: str
    unpruned: Scores | None
    curve: tuple[CurvePoint, ...]
    circuit: str | None
    evidence: tuple[Check, ...] = ()

    def at(self, target: float) -> CurvePoint | None:
        """The curve's point of this target, if it has one."""
        return next((point for point in self.curve if point.target == target), None)


class Snapshot(Config):
    """The model on its way, after `step` optimizer steps, fraction `at` of its training, and its circuits.

    `shared`: how many nodes a task's circuit at the main target shares with the trained model's, if it does.
    """

    at: float
    step: int
    nonzeros: int
    tasks: tuple[TaskResult, ...]
    shared: dict[str, int]


class RunRecord(Config):
    """All that a run has to say.

    `config` is the resolved config as plain containers (tuples become lists), `stages` maps a stage's name to
    its folder's name, and the keys of `metrics` are names from `core.metrics`, throughput excepted.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    sweep: str | None
    overrides: tuple[str, ...]
    config: dict[str, Any]
    config_hash: str
    git_commit: str | None
    git_dirty: bool | None
    packages: dict[str, str]
    python: str
    seeds: dict[str, int]
    stages: dict[str, str]
    metrics: dict[str, float]
    tasks: tuple[TaskResult, ...]
    formation: tuple[Snapshot, ...] = ()

    @field_validator("config")
    @classmethod
    def _plain(cls, config: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(config, allow_nan=False))

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(metrics.keys() - _NAMES):
            raise ValueError(f"unknown metrics {unknown}; allowed: {', '.join(sorted(_NAMES))}")
        return metrics


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write `record` as `record.json` in `folder`, atomically; returns the file."""
    write_json(folder / RECORD, record)
    return folder / RECORD


def read_record(path: Path) -> RunRecord:
    """Read a record from its file, or from the run's folder, upgrading one of an older schema.

    Raises:
        UserError: the file is missing, is not a record, or was written by a newer version of this project.
    """
    path = path / RECORD if path.is_dir() else path
    return parse_record(read_json(path), str(path))


def parse_record(values: Any, where: str = RECORD) -> RunRecord:
    """Build a record from plain containers of any schema up to `SCHEMA_VERSION`.

    Raises:
        UserError: `values` (called `where` in the message) is not a record that this version can read.
    """
    found = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UserError(f"{where}: not a run's record (no schema_version of 1 or more)")
    if found > SCHEMA_VERSION:
        raise UserError(
            f"{where}: schema_version {found} is newer than this program, which reads 1 to {SCHEMA_VERSION}"
        )
    for schema in range(found, SCHEMA_VERSION):
        values = UPGRADES[schema](values) | {"schema_version": schema + 1}
    return validate(RunRecord, values, where)


def read_all(root: Path, on_error: Callable[[UserError], None] | None = None) -> list[tuple[Path, RunRecord]]:
    """The runs under `root`, each as (folder, record), in the order of their paths.

    A folder without a record (a run under way, or interrupted) is passed over. A record that cannot be read
    goes to `on_error`, and the others are still returned.

    Raises:
        UserError: `root` is not a folder; or, without `on_error`, records cannot be read (a line for each).
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


def to_frame(records: Iterable[RunRecord]) -> "pd.DataFrame":
    """One row per run × task × target; a task without any circuit has one row without target and sizes.

    Losses are in nats per token; `select_loss` and `test_loss` are calibrated, `test_raw_loss` and
    `unpruned_loss` are not.
    """
    import pandas as pd  # here: reading and writing records needs no pandas

    return pd.DataFrame([row for record in records for row in _rows(record)], columns=list(_COLUMNS)).astype(
        _COLUMNS
    )


_COLUMNS: dict[str, Any] = {
    "name": "str",
    "sweep": "str",
    "config_hash": "str",
    "kind": "str",
    "d_model": "Int64",
    "n_layer": "Int64",
    "weights": "Int64",
    "nonzeros": "Int64",
    "validation_loss": "float64",
    "task": "str",
    "status": "str",
    "unpruned_loss": "float64",
    "target": "float64",
    "nodes": "Int64",
    "edges": "Int64",
    "select_loss": "float64",
    "select_accuracy": "float64",
    "test_loss": "float64",
    "test_raw_loss": "float64",
    "test_accuracy": "float64",
}


def _rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    model, sparsity = record.config.get("model", {}), record.config.get("sparsity", {})
    run = {
        "name": record.name,
        "sweep": record.sweep,
        "config_hash": record.config_hash,
        "kind": sparsity.get("kind"),
        "d_model": model.get("d_model"),
        "n_layer": model.get("n_layer"),
        "weights": record.metrics.get(names.WEIGHTS.name),
        "nonzeros": record.metrics.get(names.MODEL_NONZEROS.name),
        "validation_loss": record.metrics.get(names.VALIDATION_LOSS.name),
    }
    for result in record.tasks:
        task = run | {"task": result.task, "status": result.status}
        task["unpruned_loss"] = result.unpruned.loss if result.unpruned else None
        yield from (task | _sizes(point) for point in result.curve)
        if not result.curve:
            yield task


def _sizes(point: CurvePoint) -> dict[str, Any]:
    return {
        "target": point.target,
        "nodes": point.nodes,
        "edges": point.edges,
        "select_loss": point.select.calibrated_loss,
        "select_accuracy": point.select.accuracy,
        "test_loss": point.test.calibrated_loss,
        "test_raw_loss": point.test.loss,
        "test_accuracy": point.test.accuracy,
    }


def geometric_mean(sizes: Iterable[float]) -> float:
    """exp(mean(log size)); a size of 0 counts as 1, so that a circuit of nodes without edges has a logarithm.

    Raises:
        ValueError: there are no sizes.
    """
    logs = [math.log(max(size, 1.0)) for size in sizes]
    if not logs:
        raise ValueError("the geometric mean of nothing")
    return math.exp(math.fsum(logs) / len(logs))


def environment() -> dict[str, Any]:
    """The fields of a record that say on what code it ran: git_commit, git_dirty, packages, python.

    Git's are None when the package does not lie in a checkout of its own. No environment variable is read.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", "run.py") else None
    status = _git("status", "--porcelain") if commit else None
    return {
        "git_commit": commit,
        "git_dirty": None if status is None else bool(status),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parents[1]), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
