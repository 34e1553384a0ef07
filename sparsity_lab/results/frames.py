"""Records as a pandas data frame."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sparsity_lab.core import metrics
from sparsity_lab.results.record import CurvePoint, RunRecord

if TYPE_CHECKING:
    import pandas as pd


def to_frame(records: Iterable[RunRecord]) -> "pd.DataFrame":
    """Return one row per run × task × target. A task without a circuit has one row without target and sizes.

    `sparsity` is the method of training, `tokens` those that the model was trained on.
    `validation_loss`, its standard error, the losses of its components and those of n-gram models of as many
    tokens are in nats per token, task losses in nats. `raw_loss`, `selection_loss` and `accuracy`
    are the circuit's on the test pairs, `select_...` those on the selection pairs. `target` is the loss that
    the circuit has to meet; if `target_kind` is relative, it is the whole model's loss plus `excess`.
    `edges_only_loss` is the selection loss on the test pairs with weights into dropped nodes at zero,
    `pruned_loss` that with the pruned edges alone.
    """
    import pandas as pd  # local: the import takes a second, and runs without W&B do not need it

    return pd.DataFrame([row for record in records for row in _rows(record)], columns=list(_COLUMNS)).astype(
        _COLUMNS
    )


_COLUMNS: dict[str, Any] = {
    "name": "str",
    "sweep": "str",
    "config_hash": "str",
    "kind": "str",
    "d_model": "Int64",
    "n_layer": "Int64",
    "sparsity": "str",
    "seed": "Int64",
    "tokens": "Int64",
    "learning_rate": "float64",
    "weights": "Int64",
    "nonzeros": "Int64",
    "validation_loss": "float64",
    "validation_error": "float64",
    "loss_grammar": "float64",
    "loss_real": "float64",
    "epochs": "float64",
    **{f"{n}gram": "float64" for n in metrics.NGRAMS},
    "task": "str",
    "kind_of_task": "str",
    "status": "str",
    "retries": "Int64",
    "retried_because": "str",
    "best_rule_accuracy": "float64",
    "bag_accuracy": "float64",
    "unpruned_loss": "float64",
    "target": "float64",
    "target_kind": "str",
    "excess": "float64",
    "nodes": "Int64",
    "edges": "Int64",
    "pruned_edges": "Int64",
    "select_selection_loss": "float64",
    "select_accuracy": "float64",
    "selection_loss": "float64",
    "raw_loss": "float64",
    "accuracy": "float64",
    "edges_only_loss": "float64",
    "pruned_loss": "float64",
}


def _rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    run = {
        "name": record.name,
        "sweep": record.sweep,
        "config_hash": record.config_hash,
        "kind": record.kind,
        "d_model": record.model.d_model,
        "n_layer": record.model.n_layer,
        "sparsity": setting(record, "sparsity", "kind"),
        "seed": record.seeds.get("seed"),
        "tokens": record.model.tokens,
        "learning_rate": setting(record, "trainer", "learning_rate"),
        "weights": record.metrics.get(metrics.WEIGHTS.name),
        "nonzeros": record.metrics.get(metrics.MODEL_NONZEROS.name),
        "validation_loss": record.metrics.get(metrics.VALIDATION_LOSS.name),
        "validation_error": record.metrics.get(metrics.VALIDATION_ERROR.name),
        "epochs": record.metrics.get(metrics.EPOCHS.name),
        **{f"loss_{name}": record.metrics.get(m.name) for name, m in metrics.COMPONENT_LOSS.items()},
        **{f"{n}gram": record.metrics.get(metrics.NGRAM_LOSS[n, ""].name) for n in metrics.NGRAMS},
    }
    for result in record.tasks:
        task = run | {"task": result.task, "status": result.status}
        task["kind_of_task"] = result.kind
        if result.shortcuts is not None:
            task["best_rule_accuracy"] = result.shortcuts.rule_accuracy
            task["bag_accuracy"] = result.shortcuts.bag_accuracy
        task |= {"retries": result.retries, "retried_because": result.retried_because}
        task["unpruned_loss"] = result.unpruned.raw_loss if result.unpruned else None
        yield from (task | _sizes(point) for point in result.curve)
        if not result.curve:
            yield task


def setting(record: RunRecord, section: str, key: str) -> Any:
    """Return a value of the run's config; None where the record has none."""
    part = record.config.get(section)
    return part.get(key) if isinstance(part, dict) else None


def _sizes(point: CurvePoint) -> dict[str, Any]:
    return {
        "target": point.target,
        "target_kind": point.target_kind,
        "excess": point.excess,
        "nodes": point.nodes,
        "edges": point.edges,
        "pruned_edges": point.pruned_edges,
        "select_selection_loss": point.select.selection_loss,
        "select_accuracy": point.select.accuracy,
        "selection_loss": point.test.selection_loss,
        "raw_loss": point.test.raw_loss,
        "accuracy": point.test.accuracy,
        "edges_only_loss": point.edges_only.selection_loss if point.edges_only else None,
        "pruned_loss": point.pruned.selection_loss if point.pruned else None,
    }
