"""Read the data of a circuit's page from a run's folder. `viewer/page.py` renders it."""

from pathlib import Path
from typing import Any

from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.next_command import run_command
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.evidence.record import EVIDENCE, Evidence, load_evidence
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.viewer.examples_record import EXAMPLES, load_examples
from sparsity_lab.viewer.page import View, make_view


def load_view(run: Path, task: str) -> View:
    """Load the data of a page for one task of a finished run.

    Examples and evidence are None if the run has none.

    Raises:
        UserError: the run or task does not exist, or the task has no circuit.
    """
    record = read_record(run)
    results = {result.task: result for result in record.tasks}
    if task not in results:
        raise UserError(f"--task {task}: not asked in {record.name}; there: {', '.join(results) or 'none'}")
    result = results[task]
    folder = RunFolder(run)
    circuits = [load_circuit(path) for path in folder.circuits(task)]
    if not circuits:
        some = ", ".join(name for name, other in results.items() if other.curve)
        raise UserError(
            f"--task {task}: no circuit in {record.name} ({result.status}: {result.reason}); with one: {some}"
        )
    examples = folder.examples(task)
    return make_view(
        task=task,
        about=about_run(record),
        target=record.pruning.target,
        unpruned=result.unpruned,
        circuits=circuits,
        examples=load_examples(examples) if (examples / EXAMPLES).exists() else None,
        evidence=_evidence(folder, task),
        d_head=record.model.d_head,
    )


def _evidence(run: RunFolder, task: str) -> Evidence | None:
    path = run.evidence(task) / EVIDENCE
    return load_evidence(path) if path.exists() else None


def about_run(record: RunRecord) -> dict[str, Any]:
    """Describe a run as its pages do."""
    return {
        "name": record.name,
        "sweep": record.sweep,
        "loss": record.metrics.get("validation/loss"),
        "nonzeros": record.metrics.get("model/nonzeros"),
        "weights": record.metrics.get("model/weights"),
        "commit": record.git_commit,
        "command": run_command(record.overrides),
    }
