"""Draw a run in one picture: loss and kept fraction over training, and the sizes of its circuits."""

import csv
from pathlib import Path

from sparsity_lab.core import metrics
from sparsity_lab.results.drawing import Axes, Figure, rc_context
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.style import GREY, PALE, STYLE, VERMILION, log_axis, plain
from sparsity_lab.results.summary import learned


def draw_run(record: RunRecord, metrics_csv: Path, path: Path) -> Path:
    """Draw `record`, whose curves are in `metrics_csv`, as a PNG at `path`; return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        _figure(record, metrics_csv).savefig(path, dpi=120, metadata={"Software": None})
    return path


def _figure(record: RunRecord, metrics_csv: Path) -> Figure:
    figure = Figure(figsize=(10, 4.5))
    curves, sizes = figure.subplots(1, 2)
    _training(curves, metrics_csv)
    curves.set_title(plain(record.name), loc="left")

    found = sorted(
        (task for task in record.tasks if task.status == "circuit"),
        key=lambda task: max(point.edges for point in task.curve),
    )
    left = False
    for row, task in enumerate(found):
        points = [point for point in task.curve if point.target_kind == "absolute"]
        edges = [max(1, point.edges) for point in points]
        sizes.plot(edges, [row] * len(edges), color=PALE, zorder=1)
        targets = [point.target for point in points]
        sizes.scatter(edges, [row] * len(edges), c=targets, cmap="viridis", vmin=0, vmax=0.5)
        main = task.at(record.pruning.target)
        if main is not None and main.pruned_edges is not None:
            sizes.plot(max(1, main.pruned_edges), row, "|", color=VERMILION, markersize=12)
            left = True
    sizes.set_yticks(range(len(found)), [plain(task.task) for task in found], fontsize=8)
    log_axis(sizes, "x")
    bar = f"; bar: edges left after edge pruning, {record.pruning.target:g} nats" if left else ""
    sizes.set_xlabel(f"edges, a dot for each target loss (dark: strict){bar}")
    sizes.set_title(
        f"circuits; {len(learned(record.tasks))} of {len(record.tasks)} tasks learned", loc="left"
    )
    return figure


def _training(axes: Axes, metrics_csv: Path) -> None:
    with metrics_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for metric, colour, label in (
        (metrics.TRAIN_LOSS, PALE, "training"),
        (metrics.VALIDATION_LOSS, GREY, "validation"),
    ):
        axes.plot(*_column(rows, metric.name), color=colour, label=label)
    for (name, metric), style in zip(metrics.COMPONENT_LOSS.items(), (":", "--"), strict=True):
        if any(row.get(metric.name) for row in rows):
            axes.plot(*_column(rows, metric.name), color=GREY, linestyle=style, label=f"validation, {name}")
    axes.set(xlabel="optimizer steps", ylabel="loss (nats per token)")
    beside = axes.twinx()
    beside.grid(False)
    beside.spines["right"].set_visible(True)
    beside.plot(*_column(rows, metrics.KEPT_FRACTION.name), color=VERMILION, linestyle="--")
    beside.set_ylim(0, 1.05)
    beside.set_ylabel("kept fraction of the weights (dashed)", color=VERMILION)
    axes.legend(loc="lower left")


def _column(rows: list[dict[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of one metric, for the rows that log it."""
    logged = [row for row in rows if row.get(name)]
    return [float(row[metrics.STEP.name]) for row in logged], [float(row[name]) for row in logged]
