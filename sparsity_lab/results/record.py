"""The record of a run: one JSON file with its config, code versions and results. It does not import torch.

A record is a function of config, code and machine, so repeating a run writes the same bytes. Clock times and
throughput are in `timings.json` and `metrics.csv` instead. `SCHEMA_VERSION` increases when the fields change,
and `upgrades` converts records of older versions.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from sparsity_lab.circuits.circuit import Scores, Targeted, TargetKind
from sparsity_lab.core import metrics
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.evidence.record import Check
from sparsity_lab.results.upgrades import UPGRADES
from sparsity_lab.tasks.shortcuts_record import Shortcuts

SCHEMA_VERSION = 8

RECORD = "record.json"
METRICS_FILE = "metrics.csv"
_NAMES = frozenset(metric.name for metric in metrics.ALL if metric is not metrics.THROUGHPUT)

Status = Literal["circuit", "no_circuit", "not_learned", "not_askable", "empty_solves"]
Kind = Literal["dense", "sparse", "bridged", "sparsified", "imported"]


class CurvePoint(Targeted):
    """The smallest circuit found whose loss on the selection pairs is at or below `target` nats.

    `pruned_edges`: the edges left after edge pruning; None where edges were not pruned.
    `pruned`: its scores on the test pairs with these edges alone; None in older records.
    `edges_only`: its scores on the test pairs with weights into dropped nodes at zero; None in older records.
    """

    nodes: int
    edges: int
    select: Scores
    test: Scores
    pruned_edges: int | None = None
    pruned: Scores | None = None
    edges_only: Scores | None = None


class TaskResult(Config):
    """The result of one model on one task.

    `status`: "circuit" (one was found at the main target); "no_circuit" (learned, yet none meets the target);
    "not_learned" (unpruned loss above the target); "not_askable" (the tokenizer cannot express it);
    "empty_solves" (the circuit without nodes already meets the target). `reason` is one sentence, empty for
    "circuit". `circuit` is the main target's circuit file, relative to the run's folder. `evidence` lists the
    checks of that circuit. `retries`: further searches after one that may have failed, and why.

    `kind` is what a model must do to answer ("copy", "look-up", ...), `caveat` a limit of the question,
    `pairs` the number of pairs by split, and `shortcuts` how well rules without a model answer. Records of
    schemas 1 to 4 lack these four.
    """

    task: str
    status: Status
    reason: str
    unpruned: Scores | None
    curve: tuple[CurvePoint, ...]
    circuit: str | None
    evidence: tuple[Check, ...] = ()
    retries: int = 0
    retried_because: str = ""
    kind: str | None = None
    caveat: str = ""
    pairs: dict[str, int] | None = None
    shortcuts: Shortcuts | None = None

    def at(self, target: float, kind: TargetKind = "absolute") -> CurvePoint | None:
        """Return the curve's point at this target, or None. A relative target is given by its excess."""
        points = (point for point in self.curve if point.target_kind == kind)
        return next((point for point in points if math.isclose(point.asked, target, rel_tol=1e-9)), None)


class Snapshot(Config):
    """The model after `step` optimizer steps, `fraction` of its training, and its circuits.

    `shared` maps a task to the number of nodes that its circuit at the main target shares with the final one.
    """

    fraction: float
    step: int
    nonzeros: int
    tasks: tuple[TaskResult, ...]
    shared: dict[str, int]


class ModelSummary(Config):
    """The model's shape, and `tokens`, the configured number of training tokens (None if imported).

    Records of schemas 1 to 3 did not store the shape of an imported model; there it is None.
    """

    d_model: int | None
    n_layer: int | None
    d_head: int | None
    tokens: int | None


class PruningSummary(Config):
    """The finder's name, the selection loss, whether masks were polished, and the main target."""

    finder: str
    selection: Literal["raw", "calibrated"]
    polish: bool
    target: float


class Replaced(Config):
    """A number of the config that the run could not use as given: the nearest possible one, and why."""

    key: str
    asked: float
    used: float
    reason: str


class RunRecord(Config):
    """The results of a run, and all that is needed to repeat it.

    `kind` is the model's origin: trained "dense" or "sparse", trained sparse from a dense model's weights
    ("sparsified"), trained with bridges to a dense model ("bridged"), or "imported". `config` is the resolved
    config as plain containers (tuples become lists). `stages` maps a stage's name to its folder's name. The
    keys of `metrics` are names from `core.metrics`, except throughput. `replaced` lists the numbers of the
    config that the run has used otherwise; it is empty in records of schemas 1 to 4.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    sweep: str | None
    kind: Kind
    model: ModelSummary
    pruning: PruningSummary
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
    snapshots: tuple[Snapshot, ...] = ()
    replaced: tuple[Replaced, ...] = ()

    @field_validator("config")
    @classmethod
    def _plain(cls, config: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(config, allow_nan=False))

    @field_validator("metrics")
    @classmethod
    def _known(cls, values: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(values.keys() - _NAMES):
            raise ValueError(f"unknown metrics {unknown}; allowed: {', '.join(sorted(_NAMES))}")
        return values


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write `record` as `record.json` in `folder`, atomically; return the file."""
    write_json(folder / RECORD, record)
    return folder / RECORD


def read_record(path: Path) -> RunRecord:
    """Read a record from its file or from the run's folder; upgrade older schemas.

    Raises:
        UserError: the file is missing, is not a record, or was written by a newer version of this project.
    """
    if path.is_dir():
        folder, path = path, path / RECORD
        if not path.exists():
            raise UserError(f"{folder}: not the folder of a finished run: it holds no {RECORD}")
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
