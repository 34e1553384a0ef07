"""A run's tasks in a few numbers: how many are learned, how many have a circuit, the circuits' mean size."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from sparsity_lab.core import metrics
from sparsity_lab.results.record import TaskResult


def summarise(tasks: Sequence[TaskResult], target: float) -> dict[str, float]:
    """The metrics of a run's tasks, by name; sizes and loss are those of the circuits at `target` nats.

    The means are over the tasks that have such a circuit, and missing when none has.
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
        found[metrics.TEST_LOSS.name] = fmean(point.test.selection_loss for point in solved)
    return found


def learned(tasks: Iterable[TaskResult]) -> list[TaskResult]:
    """The tasks whose unpruned loss meets the target: with a circuit, without one, or solved by no node."""
    return [task for task in tasks if task.status in ("circuit", "no_circuit", "empty_solves")]


def geometric_mean(sizes: Iterable[float]) -> float:
    """exp(mean(log size)); a size of 0 counts as 1, so that a circuit of nodes without edges has a logarithm.

    Raises:
        ValueError: there are no sizes.
    """
    logs = [math.log(max(size, 1.0)) for size in sizes]
    if not logs:
        raise ValueError("the geometric mean of nothing")
    return math.exp(math.fsum(logs) / len(logs))
