"""The frontier of capability against circuit size: which models to compare, and their points. Pure functions.

1. A configuration's point is (geometric mean of sizes over the shared tasks, pretraining loss). Sizes and
   losses are averaged over seeds (`models.py`).
2. The dense lower envelope consists of the dense points that no other one beats in both.
3. `comparison.py` compares each sparse configuration with the dense ones at its loss.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.models import MEASURES, Configuration, Model, configurations, models, targets
from sparsity_lab.circuits.circuit import TargetKind
from sparsity_lab.results.record import RunRecord

ALIKE = 0.01  # nats; the standard error of a validation loss is about as large
LEAST_SHARED = 0.5  # of the tasks of the second-best configuration; weaker ones stay out of the pictures


def shared(compared: Sequence[Configuration]) -> list[str]:
    """List the tasks that all of `compared` have a circuit for, in each seed.

    If that leaves fewer than half of those that all have in some seed, these are listed.
    """
    if not compared:
        return []
    in_some = frozenset.intersection(*(one.tasks for one in compared))
    in_each = in_some.intersection(*(model.edges for one in compared for model in one.models))
    return sorted(in_each if len(in_each) >= LEAST_SHARED * len(in_some) else in_some)


def measured(compared: Iterable[Configuration], tasks: Iterable[str]) -> list[str]:
    """List the measures that all of `compared` have on all `tasks`: edges are not always pruned."""
    compared, tasks = list(compared), list(tasks)
    return [name for name in MEASURES if all(one.size(tasks, name) is not None for one in compared)]


def comparable(compared: Sequence[Configuration]) -> list[Configuration]:
    """Return the configurations to draw on the tasks they share, leaving out as few weak ones as possible.

    A model with circuits for few tasks would leave nothing to compare the others on. The one with the fewest
    is left out until the rest share half as many tasks as the second best of them has circuits for.
    """
    kept = list(compared)
    counts = sorted((len(one.tasks) for one in kept), reverse=True)
    wanted = LEAST_SHARED * counts[1] if counts[1:] else 0
    while len(kept) > 2 and len(shared(kept)) < wanted:
        kept.remove(min(kept, key=lambda one: (len(one.tasks), -one.loss, one.name)))
    return kept


def baselines(compared: Sequence[Model]) -> dict[int, tuple[float, float]]:
    """Lowest and highest loss of the n-gram models, by n; they differ where numbers of tokens do."""
    orders = sorted({n for model in compared for n in model.ngrams})
    losses = {n: [model.ngrams[n] for model in compared if n in model.ngrams] for n in orders}
    return {n: (min(found), max(found)) for n, found in losses.items()}


def matched_pair(compared: Iterable[Configuration]) -> tuple[Configuration, Configuration] | None:
    """Return the dense and weight-sparse configuration closest in pretraining loss that share a task.

    Pairs that share fewer than half as many tasks as the best pair are passed over. Of pairs whose losses
    differ by no more than `ALIKE`, the one with most seeds on both sides is returned.
    """
    compared = list(compared)
    pairs = [
        (dense, sparse)
        for dense in compared
        if dense.first.kind == "dense"
        for sparse in compared
        if sparse.first.kind != "dense" and shared([dense, sparse])
    ]
    most = max((len(shared(pair)) for pair in pairs), default=0)
    pairs = [pair for pair in pairs if len(shared(pair)) >= LEAST_SHARED * most]

    def rank(pair: tuple[Configuration, Configuration]) -> tuple[float | str, ...]:
        apart = abs(pair[0].loss - pair[1].loss)
        seeds = min(len(one.models) for one in pair)
        return (apart if apart > ALIKE else 0, -seeds, apart, *(one.name for one in pair))

    return min(pairs, key=rank, default=None)


@dataclass(frozen=True)
class KindRow:
    """One model on the tasks of one kind: how many it has learned and has circuits for, and their sizes.

    The geometric means are over the model's own circuits, and None without any.
    """

    name: str
    kind: str
    tasks: int
    learned: int
    circuits: int
    geomean_nodes: float | None
    geomean_edges: float | None
    geomean_pruned_edges: float | None


def by_kind(compared: Sequence[Model]) -> list[KindRow]:
    """Return a row for each model and kind of task that its record states."""
    rows = []
    for model in compared:
        for kind in sorted(set(model.kinds.values())):
            tasks = {task for task, own in model.kinds.items() if own == kind}
            solved = sorted(tasks & model.edges.keys())
            counts = len(tasks), len(tasks & model.learned), len(solved)
            sizes = [Configuration(model.name, (model,)).size(solved, measure) for measure in MEASURES]
            rows.append(KindRow(model.name, kind, *counts, *sizes))
    return rows


def lower_envelope(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points (size, loss) that no other one beats in both, by ascending loss."""
    best, kept = math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], points[i][0])):
        if points[index][0] < best:
            best = points[index][0]
            kept.append(index)
    return kept


@dataclass(frozen=True)
class CurveRow:
    """Geometric-mean sizes of a dense and a sparse configuration at one target, over `tasks` shared tasks.

    The first of each three is the mean over seeds, the others are the smallest and the largest seed's.
    """

    target: float
    target_kind: TargetKind
    measure: str
    tasks: int
    dense: tuple[float, float, float]
    sparse: tuple[float, float, float]


def target_curve(records: Sequence[RunRecord], dense: Configuration, sparse: Configuration) -> list[CurveRow]:
    """Compute circuit sizes against the target for two configurations, where they share a task."""
    rows = []
    for target in targets(records):
        groups = {one.first.group: one for one in configurations(models(records, target))}
        pair = [groups[one.first.group] for one in (dense, sparse)]
        if tasks := shared(pair):
            rows += [
                CurveRow(*target, measure, len(tasks), *(spread(one, tasks, measure) for one in pair))
                for measure in measured(pair, tasks)
            ]
    return rows


def spread(one: Configuration, tasks: Sequence[str], measure: str) -> tuple[float, float, float]:
    """Return a configuration's size over `tasks`, and its smallest and largest seed's."""
    size = one.size(tasks, measure)
    assert size is not None
    by_seed = one.sizes_by_seed(tasks, measure)
    return size, min([size, *by_seed]), max([size, *by_seed])
