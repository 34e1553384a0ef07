"""Read the data of a circuit's page from a run's folder. `viewer/page.py` renders it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsity_lab.circuits.circuit import Circuit, load_circuit
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.next_command import evidence_command, run_command
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
        without_evidence=_how_to_get_evidence(record, run, task, circuits),
    )


def _evidence(run: RunFolder, task: str) -> Evidence | None:
    path = run.evidence(task) / EVIDENCE
    return load_evidence(path) if path.exists() else None


def _how_to_get_evidence(record: RunRecord, run: Path, task: str, circuits: Sequence[Circuit]) -> str:
    """Return one line for the page of a circuit without evidence."""
    target = record.pruning.target
    main = [circuit for circuit in circuits if circuit.target == target]
    if not main:
        return f"No checks were made: they are made of the circuit at {target:g} nats, and there is none."
    if main[0].needs_whole_run:
        return (
            "No checks were made: they cannot run the whole model beside the circuit, which this one needs."
        )
    return f"No checks of this circuit were made. To make them: {evidence_command(run, task)}"


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
