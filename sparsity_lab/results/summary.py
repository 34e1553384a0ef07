"""Summarise a run's tasks: the numbers learned and with a circuit, and the circuits' mean size."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from sparsity_lab.core import metrics
from sparsity_lab.results.record import TaskResult


def summarise(tasks: Sequence[TaskResult], target: float) -> dict[str, float]:
    """Compute the metrics of a run's tasks by name, from the circuits at `target` nats.

    Means are over the tasks with such a circuit. They are missing if no task has one.
    """
    solved = [point for task in tasks if task.status == "circuit" and (point := task.at(target))]
    found: dict[str, float] = {
        metrics.TASKS_ASKED.name: sum(task.status != "not_askable" for task in tasks),
        metrics.TASKS_LEARNED.name: len(learned(tasks)),
        metrics.TASKS_SOLVED.name: len(solved),
    }
    if solved:
        found[metrics.GEOMEAN_EDGES.name] = geometric_mean(point.edges for point in solved)
        found[metrics.GEOMEAN_NODES.name] = geometric_mean(point.nodes for point in solved)
        pruned = [point.pruned_edges for point in solved if point.pruned_edges is not None]
        if len(pruned) == len(solved):
            found[metrics.GEOMEAN_PRUNED_EDGES.name] = geometric_mean(pruned)
        found[metrics.TEST_LOSS.name] = fmean(point.test.selection_loss for point in solved)
    return found


def learned(tasks: Iterable[TaskResult]) -> list[TaskResult]:
    """Return the tasks whose unpruned loss meets the target, whether or not a circuit was found."""
    return [task for task in tasks if task.status in ("circuit", "no_circuit", "empty_solves")]


def geometric_mean(sizes: Iterable[float]) -> float:
    """Compute exp(mean(log size)). A size of 0 counts as 1, so that an edgeless circuit has a logarithm.

    Raises:
        ValueError: there are no sizes.
    """
    logs = [math.log(max(size, 1.0)) for size in sizes]
    if not logs:
        raise ValueError("the geometric mean of nothing")
    return math.exp(math.fsum(logs) / len(logs))
