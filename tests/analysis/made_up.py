"""Records of models that were never trained, for tests of the analysis: sizes follow a rule one can state."""

from collections.abc import Mapping
from typing import Any

from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.results.record import CurvePoint, ModelSummary, PruningSummary, RunRecord, TaskResult

SCORES = Scores(raw_loss=0.1, selection_loss=0.05, accuracy=1.0)
POOR = Scores(raw_loss=3.0, selection_loss=0.69, accuracy=0.5)


def shape(d_model: int | None, tokens: int | None = 1000) -> ModelSummary:
    """A model of two layers."""
    return ModelSummary(d_model=d_model, n_layer=2, d_head=16, tokens=tokens)


def empty_record(name: str, **changes: Any) -> RunRecord:
    """A run of which nothing is known but what `changes` say."""
    nothing: dict[str, Any] = {
        "sweep": None,
        "kind": "sparse",
        "model": shape(8),
        "pruning": PruningSummary(finder="masks", selection="raw", polish=True, target=0.15),
        "overrides": (),
        "config": {},
        "config_hash": name,
        "git_commit": None,
        "git_dirty": None,
        "packages": {},
        "python": "3.11",
        "seeds": {},
        "stages": {},
        "metrics": {},
        "tasks": (),
    }
    return RunRecord(name=name, **nothing | changes)


def record(
    kind: str,
    d_model: int,
    nonzeros: int,
    loss: float,
    edges: Mapping[str, int],
    *,
    sweep: str | None = "width_l0",
    targets: Mapping[float, float] | None = None,
    others: tuple[TaskResult, ...] = (),
) -> RunRecord:
    """A model whose circuit for a task has `edges[task]` edges at 0.15 nats, times `targets[t]` at others."""
    factors = {0.15: 1.0} | dict(targets or {})
    tasks = tuple(
        TaskResult(
            task=task,
            status="circuit",
            reason="",
            unpruned=SCORES,
            curve=tuple(
                CurvePoint(target=t, nodes=3, edges=round(count * factor), select=SCORES, test=SCORES)
                for t, factor in sorted(factors.items())
            ),
            circuit=f"circuits/{task}.json",
        )
        for task, count in edges.items()
    )
    name = f"{kind}-{d_model}-{nonzeros}"
    return empty_record(
        name,
        sweep=sweep,
        kind=kind,
        model=shape(d_model),
        metrics={"validation/loss": loss, "model/weights": 4 * nonzeros, "model/nonzeros": nonzeros},
        tasks=tasks + others,
    )


def without_circuit(task: str, status: str) -> TaskResult:
    """A task that came to nothing, for the reason `status`."""
    return TaskResult(
        task=task,
        status=status,  # type: ignore[arg-type]
        reason="Made up.",
        unpruned=POOR,
        curve=(),
        circuit=None,
    )
