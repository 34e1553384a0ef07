"""What Weights & Biases gets of a finished run: summary, tables, plots, files, and its artifacts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from sparsity_lab.results.frames import to_frame
from sparsity_lab.results.record import METRICS_FILE, RECORD, RunRecord, TaskResult

ARTIFACT_TIMEOUT = 60  # seconds for the server to accept an artifact that the next one refers to


def mirror_record(run: Any, folder: Path, record: RunRecord, plots: Sequence[Path]) -> None:
    """Send summary, tables, plots and files of the run in `folder`."""
    run.config.update(record.config, allow_val_change=True)
    run.summary.update({**record.metrics, "name": record.name, "config_hash": record.config_hash})
    run.log({"tasks": _table(record)})
    if any(task.evidence for task in record.tasks):
        run.log({"evidence": _evidence_table(record)})
    if curves := [task for task in record.tasks if task.curve]:
        run.log({"circuit_sizes": _curves(curves)})
    if pruned := [task for task in curves if all(p.pruned_edges is not None for p in task.curve)]:
        run.log({"circuit_sizes_pruned": _curves(pruned, pruned=True)})
    for plot in plots:
        run.log({f"plots/{plot.stem}": wandb.Image(str(plot))})
    for name in (RECORD, METRICS_FILE):
        if (folder / name).exists():
            run.save(str(folder / name), base_path=str(folder), policy="now")


def mirror_artifacts(run: Any, corpus: Path | None, model: Path | None, circuits: Sequence[Path]) -> None:
    """Send the artifacts corpus, model and circuits, each derived from the one before."""
    origin: dict[str, str] = {}
    made: list[tuple[str, str, Sequence[Path]]] = []
    if corpus:
        made.append(("corpus", corpus.name, sorted(corpus.glob("*.json"))))
    if model:
        made.append(("model", model.name, [model]))
    if circuits:
        made.append(("circuits", f"circuits-{run.id}", circuits))
    for kind, name, paths in made:
        artifact = _artifact(name, kind, paths, origin)
        run.log_artifact(artifact)
        if kind != "circuits" and not run.offline:  # offline, only the metadata record the origin
            artifact.wait(ARTIFACT_TIMEOUT)
            run.use_artifact(artifact)
        origin = origin | {kind: name}


def _curves(tasks: Sequence[TaskResult], pruned: bool = False) -> Any:
    """Plot edges, all or those left after edge pruning, against target loss, one line per task."""
    curves = [sorted(task.curve, key=lambda point: point.target) for task in tasks]
    return wandb.plot.line_series(
        xs=[[point.target for point in curve] for curve in curves],
        ys=[[point.pruned_edges if pruned else point.edges for point in curve] for curve in curves],
        keys=[task.task for task in tasks],
        title=f"Edges of the circuit{' after edge pruning' * pruned} against target loss",
        xname="target loss (nats)",
    )


def _table(record: RunRecord) -> wandb.Table:
    frame = to_frame([record]).astype(object)
    return wandb.Table(columns=list(frame.columns), data=frame.where(frame.notna(), None).to_numpy())


def _evidence_table(record: RunRecord) -> wandb.Table:
    """Make a row per check of each task. Its numbers share one cell: "name value unit; ..."."""
    rows: list[Iterable[Any]] = [
        [
            task.task,
            check.name,
            check.verdict,
            "; ".join(f"{m.name} {m.value:.4g} {m.unit}" for m in check.values),
            check.sentence,
            check.rule,
        ]
        for task in record.tasks
        for check in task.evidence
    ]
    return wandb.Table(columns=["task", "check", "verdict", "values", "sentence", "rule"], data=rows)


def _artifact(name: str, kind: str, paths: Sequence[Path], origin: Mapping[str, str]) -> wandb.Artifact:
    artifact = wandb.Artifact(name, type=kind, metadata={"made from": dict(origin)})
    for path in paths:  # "immutable": refer to files in place instead of copying a checkpoint
        if path.is_dir():
            artifact.add_dir(str(path), policy="immutable")
        else:
            # circuit files of different tasks have the same names
            name_in_artifact = f"{path.parent.name}/{path.name}"
            artifact.add_file(str(path), name=name_in_artifact, policy="immutable")
    return artifact
