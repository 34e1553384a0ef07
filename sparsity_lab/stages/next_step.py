"""The last line of a run: the command that shows its results, or why there is nothing to show."""

from pathlib import Path

from sparsity_lab.core.next_command import analysis_command
from sparsity_lab.results.record import RunRecord


def next_step(record: RunRecord, folder: Path) -> str:
    """Return the command for the page of the run's smallest circuit, or advice if it has none."""
    sizes = {
        task.task: point.edges
        for task in record.tasks
        if task.status == "circuit" and (point := task.at(record.pruning.target)) is not None
    }
    if sizes:
        task = min(sizes, key=lambda name: (sizes[name], name))
        command = analysis_command("view_circuit.py", folder, "--task", task)
        return f"a circuit's page: {command}" if command else f"circuits: {', '.join(sizes)}"
    states = {task.status for task in record.tasks}
    if states == {"not_askable"}:
        return "no task can be asked with this tokenizer; for tasks of your own: tasks.path=FILE"
    if "not_learned" in states:
        return "no task has a circuit; to learn more tasks, train longer: trainer.tokens"
    return "no task has a circuit; the record says why"
