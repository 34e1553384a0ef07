"""Circuits of a model during its training: each snapshot's, found and kept as the final ones are."""

from collections.abc import Mapping
from pathlib import Path

from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.snapshots import shared_nodes
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.files import read_json
from sparsity_lab.core.run_folder import RESULT, SNAPSHOTS, circuit_file
from sparsity_lab.model.checkpoints import count_weights, load_model
from sparsity_lab.results.record import Snapshot, TaskResult
from sparsity_lab.stages.circuits import task_circuits
from sparsity_lab.stages.context import ModelContext
from sparsity_lab.training.snapshots import snapshot_folder, step_at

Folders = Mapping[str, Path]  # of the circuits of each task


def snapshot_circuits(config: RunConfig, tokens: Path, model: Path, root: Path) -> dict[float, Folders]:
    """The folders of circuits at each fraction of training before the end."""
    return {
        at: task_circuits(config, ModelContext.of(config, tokens, snapshot_folder(model, at), root))
        for at in config.snapshots.before_the_end
    }


def snapshot_records(
    config: RunConfig, model: Path, circuits: Mapping[float, Folders], final: Folders
) -> tuple[Snapshot, ...]:
    """The record's part about each snapshot."""
    n_steps = config.trainer.steps(config.model.n_ctx)
    return tuple(
        Snapshot(
            fraction=at,
            step=step_at(at, n_steps),
            nonzeros=count_weights(load_model(snapshot_folder(model, at)))[1],
            tasks=tuple(_result(at, folder) for folder in folders.values()),
            shared=_shared(circuit_file(config.pruning.target), folders, final),
        )
        for at, folders in circuits.items()
    )


def _result(at: float, folder: Path) -> TaskResult:
    result = validate(TaskResult, read_json(folder / RESULT), str(folder / RESULT))
    path = result.circuit and f"{SNAPSHOTS}/{at}/{result.circuit}"
    return result.model_copy(update={"circuit": path})


def _shared(name: str, folders: Folders, final: Folders) -> dict[str, int]:
    pairs = {task: (folder / name, final[task] / name) for task, folder in folders.items()}
    return {
        task: shared_nodes(load_circuit(early), load_circuit(late))
        for task, (early, late) in pairs.items()
        if early.exists() and late.exists()
    }
