"""Compare each sparse configuration with the dense ones of the same pretraining loss (`envelope.py`)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import envelope
from analysis.envelope import Sample
from analysis.models import MEASURES, Configuration, Target
from sparsity_lab.circuits.circuit import TargetKind
from sparsity_lab.tasks.shortcuts_record import BAG_BAR

WELL_LEARNED = 0.05  # nats; the unpruned loss below which a task counts as well learned
DRAWN = "of the pictures"  # tasks that are the same for every configuration
OUTSIDE = 0.01  # share of bootstrap draws; more of them outside the dense models' range are told


@dataclass(frozen=True)
class Ratio:
    """The ratio of sizes between dense models and a sparse configuration of equal pretraining loss.

    `ratio` is None if no dense model matches, and `low` and `high`, the 95 % interval, are None as well if
    there is nothing to resample; `note` gives the reason. `outside` is the share of the bootstrap's draws
    that no dense model matches, which the interval leaves out. `seeds` is the fewest of the compared
    configurations. `resampled` is what the interval is over. `among` says which tasks; it is empty for all.
    """

    sparse_model: str
    width: int
    nonzeros: int
    loss: float
    measure: str
    target: float
    target_kind: TargetKind
    ratio: float | None
    low: float | None
    high: float | None
    outside: float | None
    tasks: int
    seeds: int
    kind: str
    among: str
    resampled: str
    dense_models: tuple[str, ...]
    task_names: tuple[str, ...]
    note: str


def ratio(
    sparse: Configuration,
    dense: Sequence[Configuration],
    target: Target,
    measure: str = "edges",
    among: Iterable[str] | None = None,
    label: str = "",
) -> Ratio:
    """Compare `sparse` along the envelope of `dense` at its loss, on the tasks that both have.

    `among` restricts the tasks, and `label` says how.
    """
    tasks = sorted(sparse.tasks if among is None else sparse.tasks & set(among))
    ours, theirs = sample(sparse, tasks, measure), [sample(one, tasks, measure) for one in dense]
    usable = envelope.eligible(ours, theirs)
    point, low, high, outside, names, compared, resampled, note = None, None, None, None, [], [], "", ""
    losses = [one.loss for one in dense]
    if not dense:
        note = "no dense model"
    elif not min(losses) <= sparse.loss <= max(losses):
        note = f"outside the dense models' range ({min(losses):.3f} to {max(losses):.3f} nats)"
    elif not usable:
        note = "no task with a circuit in a dense model too"
    else:
        theirs = [theirs[index] for index in usable]
        averaged = [envelope.average(one) for one in (ours, *theirs)]
        found = envelope.along_envelope(averaged[0], averaged[1:], np.ones((1, len(tasks))))
        if np.isnan(found.log_b[0]):
            few = [dense[index].loss for index in usable]
            note = f"outside the range of the dense models to compare ({min(few):.3f} to {max(few):.3f} nats)"
        else:
            point = float(np.exp(found.log_b[0]))
            around = list(dict.fromkeys([int(found.below_b[0]), int(found.above_b[0])]))
            compared = [dense[usable[index]] for index in around]
            known = np.stack([averaged[0].log_bt[0], *(averaged[1 + i].log_bt[0] for i in around)])
            names = [task for i, task in enumerate(tasks) if not np.isnan(known[:, i]).any()]
            clusters, resampled = clusters_of(sparse, tasks, names)
            seeds = max(one.seeds for one in (sparse, *compared))
            if seeds > 1:
                resampled = f"seeds and {resampled}"
            if seeds > 1 or len({clusters[tasks.index(task)] for task in names}) > 1:
                draws, outside = envelope.bootstrap(ours, theirs, clusters)
                low, high = envelope.interval(draws) if len(draws) else (None, None)
                if outside > OUTSIDE:
                    note = f"{outside:.0%} of the bootstrap draws are outside the dense models' range"
            else:
                resampled, note = "", "a single task of a single seed has no interval"
    return Ratio(
        sparse_model=sparse.name,
        width=sparse.first.d_model,
        nonzeros=sparse.first.nonzeros,
        loss=sparse.loss,
        measure=measure,
        target=target.value,
        target_kind=target.kind,
        ratio=point,
        low=low,
        high=high,
        outside=outside,
        tasks=len(names),
        seeds=min(one.seeds for one in (sparse, *compared)),
        kind=sparse.first.kind,
        among=label,
        resampled=resampled,
        dense_models=tuple(one.name for one in compared),
        task_names=tuple(names),
        note=note,
    )


def usable(
    sparse: Configuration, dense: Sequence[Configuration], measure: str = "edges"
) -> list[Configuration]:
    """Return the dense configurations that share enough tasks with `sparse` to be compared."""
    tasks = sorted(sparse.tasks)
    kept = envelope.eligible(sample(sparse, tasks, measure), [sample(one, tasks, measure) for one in dense])
    return [dense[index] for index in kept]


def sample(one: Configuration, tasks: Sequence[str], measure: str) -> Sample:
    """Return the losses of a configuration's seeds and their log sizes on `tasks`."""
    return Sample(np.array([model.loss for model in one.models]), envelope.logs(one.of(measure), tasks))


def clusters_of(
    sparse: Configuration, tasks: Sequence[str], compared: Sequence[str]
) -> tuple[list[str], str]:
    """Return the cluster of each task and what the clusters are: kinds of task, or else families.

    Kinds are used if all tasks state one and the compared tasks are of enough kinds to resample.
    """
    kinds = {task: kind for model in sparse.models for task, kind in model.kinds.items()}
    if len({kinds.get(task) for task in compared} - {None}) >= envelope.LEAST_CLUSTERS and all(
        task in kinds for task in tasks
    ):
        return [kinds[task] for task in tasks], "kinds of task"
    return envelope.families(tasks), "tasks, twins as one"


def ratios(
    sparse: Sequence[Configuration], dense: Sequence[Configuration], target: Target
) -> Iterator[Ratio]:
    """Yield the ratio of every sparse configuration in every measure that is known."""
    for one in sparse:
        for measure in known_measures([one, *dense]):
            yield ratio(one, dense, target, measure)


def known_measures(compared: Sequence[Configuration]) -> list[str]:
    """List the measures that some sparse and some dense configuration have."""
    sparse, dense = (
        [one for one in compared if (one.first.kind == "dense") is is_dense] for is_dense in (False, True)
    )
    return [
        measure
        for measure in MEASURES
        if any(any(one.of(measure)) for one in sparse)
        and (not dense or any(any(one.of(measure)) for one in dense))
    ]


def subsets(
    sparse: Sequence[Configuration], dense: Sequence[Configuration], target: Target, drawn: Iterable[str]
) -> Iterator[Ratio]:
    """Yield the same ratios on parts of the tasks.

    The parts are `drawn`, the tasks of the pictures, which are the same for every configuration; well and
    less well learned tasks; of those whose shortcuts are recorded, the ones that a bag of tokens answers and
    the others; and the tasks of each kind. A task is well learned if its unpruned loss is below
    `WELL_LEARNED` in the sparse configuration and in every dense one that has a circuit for it.
    """
    for one in sparse:
        parts = (
            {DRAWN: one.tasks.intersection(drawn)} | _by_learning(one, dense) | _by_bag(one) | _by_kind(one)
        )
        for measure in known_measures([one, *dense]):
            for label, tasks in parts.items():
                if tasks:
                    yield ratio(one, dense, target, measure, tasks, label)


def _by_learning(sparse: Configuration, dense: Sequence[Configuration]) -> dict[str, set[str]]:
    losses = {
        task: max(
            (
                model.unpruned[task]
                for one in (sparse, *dense)
                for model in one.models
                if task in model.edges and task in model.unpruned
            ),
            default=np.inf,
        )
        for task in sparse.tasks
    }
    well = {task for task, loss in losses.items() if loss < WELL_LEARNED}
    return {
        f"unpruned loss below {WELL_LEARNED:g}": well,
        f"unpruned loss of {WELL_LEARNED:g} or more": set(sparse.tasks) - well,
    }


def _by_bag(sparse: Configuration) -> dict[str, set[str]]:
    bags = {task: right for model in sparse.models for task, right in model.bags.items()}
    known = {task for task in sparse.tasks if task in bags}
    answered = {task for task in known if bags[task] > BAG_BAR}
    return {
        f"bag of tokens right on at most {BAG_BAR:.0%}": known - answered,
        f"bag of tokens right on more than {BAG_BAR:.0%}": answered,
    }


def _by_kind(sparse: Configuration) -> dict[str, set[str]]:
    kinds = {task: kind for model in sparse.models for task, kind in model.kinds.items()}
    parts: dict[str, set[str]] = {}
    for task in sparse.tasks & kinds.keys():
        parts.setdefault(f"kind: {kinds[task]}", set()).add(task)
    return dict(sorted(parts.items()))
