"""Compute the frontier of capability against circuit size from records. All functions are pure.

Steps, for one target loss (Gao et al. 2025, §3 and Fig. 2):
1. a model's size on a task is the number of edges of its circuit at the target;
2. a model's point is (geometric mean of edges over the tasks all models share, pretraining loss);
3. a sparse model is compared with a dense one of the same pretraining loss: log edges are interpolated, task
   by task, linearly in loss between the two dense models around it. Nothing is extrapolated;
4. the interval of the ratio is a bootstrap over tasks.

A model is dense, or weight-sparse in one of three kinds: trained sparse from the start, sparsified (trained
from a dense model's weights) or bridged to a dense model. Each kind is compared separately.

A task that the model has not learned, or that the circuit without nodes solves, has no size. A circuit
without edges counts as one edge, so that its logarithm exists.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.metrics import Metric
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.summary import geometric_mean, learned

DRAWS = 10_000
K = TypeVar("K")
LEAST_SHARED = 3  # tasks; models with fewer circuits are left out of a comparison until so many are shared
INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Model:
    """One run as a point of the frontier. `edges` maps a task to the edges of its circuit at the target.

    `learned` tasks have an unpruned loss that meets the target; they include `solved_by_nothing`, the tasks
    that the circuit without nodes solves.

    `id` is the hash of the run's config; `loss` the pretraining loss on validation text, in nats per token,
    and `by_component` that on its generated and its real text, where the record has them. `ngrams` maps n to
    the loss of an n-gram model of as many training tokens. `kinds` maps a task to what it asks ("copy", ...).
    `seed` is None for records that lack it.
    """

    id: str
    name: str
    kind: str
    seed: int | None
    d_model: int
    weights: int
    nonzeros: int
    loss: float
    learned: frozenset[str]
    solved_by_nothing: frozenset[str]
    edges: Mapping[str, int]
    by_component: Mapping[str, float] = field(default_factory=dict)
    ngrams: Mapping[int, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """The ratio of edges between a dense and a sparse model of equal pretraining loss, over `tasks`.

    `ratio`, `low` and `high` (the 95 % interval) are None if no dense model matches; `note` gives the reason.
    """

    sparse: str
    kind: str
    d_model: int
    nonzeros: int
    loss: float
    dense: tuple[str, ...]
    tasks: tuple[str, ...]
    ratio: float | None
    low: float | None
    high: float | None
    note: str


def targets(records: Iterable[RunRecord]) -> list[float]:
    """List every target loss at which some circuit was found, ascending."""
    return sorted({point.target for record in records for task in record.tasks for point in task.curve})


def models(records: Iterable[RunRecord], target: float) -> list[Model]:
    """Return one model per config hash, the last one recorded, ordered by kind, width and nonzeros.

    Imported models, which were trained on other text, are left out.

    Raises:
        UserError: a record lacks a value that the frontier needs.
    """
    latest = {record.config_hash: record for record in records if record.kind != "imported"}
    found = [_model(record, target) for record in latest.values()]
    return sorted(found, key=lambda model: (model.kind, model.d_model, model.nonzeros, model.name))


def _model(record: RunRecord, target: float) -> Model:
    try:
        weights, nonzeros, loss = (
            record.metrics[metric.name]
            for metric in (metrics.WEIGHTS, metrics.MODEL_NONZEROS, metrics.VALIDATION_LOSS)
        )
    except KeyError as error:
        raise UserError(f"record of {record.name}: lacks {error}") from None
    if record.model.d_model is None:
        raise UserError(f"record of {record.name}: lacks model.d_model")
    solved_by_nothing = frozenset(task.task for task in record.tasks if task.status == "empty_solves")
    points = {task.task: task.at(target) for task in learned(record.tasks)}
    return Model(
        id=record.config_hash,
        name=record.name,
        kind=record.kind,
        seed=record.seeds.get("seed"),
        d_model=record.model.d_model,
        weights=int(weights),
        nonzeros=int(nonzeros),
        loss=loss,
        learned=frozenset(points),
        solved_by_nothing=solved_by_nothing,
        edges={task: point.edges for task, point in points.items() if point is not None},
        by_component=_known(record, metrics.COMPONENT_LOSS),
        ngrams=_known(record, {n: metrics.NGRAM_LOSS[n, ""] for n in metrics.NGRAMS}),
        kinds={task.task: task.kind for task in record.tasks if task.kind},
    )


def _known(record: RunRecord, wanted: Mapping[K, Metric]) -> dict[K, float]:
    """Those of the metrics that the record has."""
    return {
        key: record.metrics[metric.name] for key, metric in wanted.items() if metric.name in record.metrics
    }


def shared(compared: Sequence[Model]) -> list[str]:
    """List the tasks that all of `compared` have learned and have a circuit for."""
    return sorted(frozenset.intersection(*(frozenset(model.edges) for model in compared))) if compared else []


def baselines(compared: Sequence[Model]) -> dict[int, tuple[float, float]]:
    """Lowest and highest loss of the n-gram models, by n; they differ where numbers of tokens do."""
    orders = sorted({n for model in compared for n in model.ngrams})
    losses = {n: [model.ngrams[n] for model in compared if n in model.ngrams] for n in orders}
    return {n: (min(found), max(found)) for n, found in losses.items()}


@dataclass(frozen=True)
class KindRow:
    """One model on the tasks of one kind: how many it has learned and has circuits for, and their size.

    `geomean_edges` is over the model's own circuits, and None without any.
    """

    name: str
    kind: str
    tasks: int
    learned: int
    circuits: int
    geomean_edges: float | None


def by_kind(compared: Sequence[Model]) -> list[KindRow]:
    """Return a row for each model and kind of task that its record states."""
    rows = []
    for model in compared:
        for kind in sorted(set(model.kinds.values())):
            tasks = {task for task, own in model.kinds.items() if own == kind}
            solved = sorted(tasks & model.edges.keys())
            edges = size(model, solved) if solved else None
            rows.append(KindRow(model.name, kind, len(tasks), len(tasks & model.learned), len(solved), edges))
    return rows


def comparable(models: Sequence[Model]) -> list[Model]:
    """Return the models to compare on the tasks they share, leaving out as few weak models as possible.

    A model with circuits for few tasks would leave nothing to compare the others on. The one with the fewest
    is left out until the rest share LEAST_SHARED tasks, or as many as the second best of them has.
    """
    kept = list(models)
    counts = sorted((len(model.edges) for model in kept), reverse=True)
    wanted = min(LEAST_SHARED, *counts[1:2]) if counts[1:] else 0
    while len(kept) > 2 and len(shared(kept)) < wanted:
        kept.remove(min(kept, key=lambda model: (len(model.edges), -model.loss, model.name)))
    return kept


def size(model: Model, tasks: Iterable[str]) -> float:
    """Geometric mean of the model's edges over `tasks`."""
    return geometric_mean(model.edges[task] for task in tasks)


def ratio(sparse: Model, dense: Sequence[Model], among: Iterable[str] | None = None, seed: int = 0) -> Ratio:
    """Compare `sparse` with dense models at its pretraining loss, on shared tasks (within `among`)."""
    around = _neighbours(sparse.loss, dense)
    tasks = [] if around is None else shared([sparse, *around[:2]])
    if among is not None:
        tasks = sorted(set(tasks) & set(among))
    point, low, high, note = None, None, None, ""
    if not dense:
        note = "no dense model"
    elif around is None:
        losses = [model.loss for model in dense]
        note = f"outside the dense models' range ({min(losses):.3f} to {max(losses):.3f} nats)"
    elif not tasks:
        note = "no task with a circuit in all three"
    else:
        logs = np.array([_log_ratio(task, sparse, *around) for task in tasks])
        point = float(np.exp(logs.mean()))
        low, high = bootstrap(logs, seed)
        note = "a single task has no interval" if len(tasks) == 1 else ""
    return Ratio(
        sparse=sparse.name,
        kind=sparse.kind,
        d_model=sparse.d_model,
        nonzeros=sparse.nonzeros,
        loss=sparse.loss,
        dense=() if around is None else tuple(dict.fromkeys(model.name for model in around[:2])),
        tasks=tuple(tasks),
        ratio=point,
        low=None if len(tasks) < 2 else low,
        high=None if len(tasks) < 2 else high,
        note=note,
    )


def _neighbours(loss: float, dense: Sequence[Model]) -> tuple[Model, Model, float] | None:
    """Return the dense models just below and above `loss`, and its position between them (0 to 1)."""
    below = max((model for model in dense if model.loss <= loss), key=lambda model: model.loss, default=None)
    above = min((model for model in dense if model.loss >= loss), key=lambda model: model.loss, default=None)
    if below is None or above is None:
        return None
    gap = above.loss - below.loss
    return below, above, (loss - below.loss) / gap if gap else 0.0


def _log_ratio(task: str, sparse: Model, below: Model, above: Model, share: float) -> float:
    log_below, log_above, log_sparse = (
        math.log(max(model.edges[task], 1)) for model in (below, above, sparse)
    )
    return (1 - share) * log_below + share * log_above - log_sparse


def bootstrap(logs: np.ndarray, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """Bootstrap the 95 % interval of exp(mean(logs)); `logs` has one entry per task."""
    picks = np.random.default_rng(seed).integers(len(logs), size=(draws, len(logs)))
    low, high = np.percentile(np.exp(logs[picks].mean(axis=1)), INTERVAL)
    return float(low), float(high)


def matched_pair(compared: Iterable[Model]) -> tuple[Model, Model] | None:
    """Return the dense and weight-sparse model closest in pretraining loss that share a task."""
    compared = list(compared)
    pairs = [
        (dense, sparse)
        for dense in compared
        if dense.kind == "dense"
        for sparse in compared
        if sparse.kind != "dense" and shared([dense, sparse])
    ]
    return min(
        pairs, key=lambda pair: (abs(pair[0].loss - pair[1].loss), pair[0].name, pair[1].name), default=None
    )


@dataclass(frozen=True)
class CurveRow:
    """Geometric-mean edges of two models at one target loss (nats), over `tasks` with a circuit in both."""

    target: float
    tasks: int
    dense_edges: float
    sparse_edges: float


def target_curve(records: Sequence[RunRecord], dense: Model, sparse: Model) -> list[CurveRow]:
    """Compute circuit size against target loss for two models, skipping targets without a shared task."""
    rows = []
    for target in targets(records):
        by_id = {model.id: model for model in models(records, target)}
        pair = by_id[dense.id], by_id[sparse.id]
        if tasks := shared(pair):
            rows.append(CurveRow(target, len(tasks), size(pair[0], tasks), size(pair[1], tasks)))
    return rows
