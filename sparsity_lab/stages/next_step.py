"""The last line of a run: the command that shows its results, or why there is nothing to show."""

import os
import shlex
from pathlib import Path

from sparsity_lab.results.record import RunRecord

VIEWER = Path(__file__).parents[2] / "analysis" / "view_circuit.py"  # in a clone; a wheel has no pictures


def next_step(record: RunRecord, folder: Path) -> str:
    """Return the command for the page of the run's smallest circuit, or advice if it has none."""
    sizes = {
        task.task: point.edges
        for task in record.tasks
        if task.status == "circuit" and (point := task.at(record.pruning.target)) is not None
    }
    if sizes:
        task = min(sizes, key=lambda name: (sizes[name], name))
        command = ["python", _from_here(VIEWER), _from_here(folder), "--task", task]
        return (
            f"a circuit's page: {shlex.join(command)}" if VIEWER.exists() else f"circuits: {', '.join(sizes)}"
        )
    states = {task.status for task in record.tasks}
    if states == {"not_askable"}:
        return "no task can be asked with this tokenizer; for tasks of your own: tasks.path=FILE"
    if "not_learned" in states:
        return "no task has a circuit; to learn more tasks, train longer: trainer.tokens"
    return "no task has a circuit; the record says why"


def _from_here(path: Path) -> str:
    """Return the path relative to the working directory where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
