"""A run at a glance: loss and kept fraction over training, and the sizes of its circuits, as one picture."""

import csv
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from sparsity_lab.core import metrics
from sparsity_lab.results.record import RunRecord

DARK, BRIGHT, PALE = "#333333", "#D55E00", "#999999"  # of Okabe and Ito's palette


def draw_run(record: RunRecord, metrics_csv: Path, path: Path) -> Path:
    """Write the picture of `record`, whose curves are in `metrics_csv`, as PNG to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"text.parse_math": False}):  # names are drawn as they are (S12)
        _figure(record, metrics_csv).savefig(path, dpi=120, metadata={"Software": None})
    return path


def _figure(record: RunRecord, metrics_csv: Path) -> Figure:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    curves, sizes = figure.subplots(1, 2)
    with metrics_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for metric, colour, label in (
        (metrics.TRAIN_LOSS, PALE, "training"),
        (metrics.VALIDATION_LOSS, DARK, "validation"),
    ):
        curves.plot(*_column(rows, metric.name), color=colour, label=label)
    curves.set(xlabel="optimizer steps", ylabel="loss (nats per token)", title=record.name)
    beside = curves.twinx()
    beside.plot(*_column(rows, metrics.KEPT_FRACTION.name), color=BRIGHT, linestyle="--")
    beside.set_ylim(0, 1.05)
    beside.set_ylabel("kept fraction of the weights (dashed)", color=BRIGHT)
    curves.legend(frameon=False, loc="lower left")

    found = sorted(
        (task for task in record.tasks if task.status == "circuit"),
        key=lambda task: max(point.edges for point in task.curve),
    )
    for row, task in enumerate(found):
        edges = [max(1, point.edges) for point in task.curve]
        sizes.plot(edges, [row] * len(edges), color=PALE, zorder=1)
        targets = [point.target for point in task.curve]
        sizes.scatter(edges, [row] * len(edges), c=targets, cmap="viridis", vmin=0, vmax=0.5)
    sizes.set_yticks(range(len(found)), [task.task for task in found], fontsize=8)
    sizes.set(xscale="log", xlabel="edges, a dot for each target loss (dark: strict)")
    sizes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    sizes.xaxis.set_minor_formatter(NullFormatter())
    asked, learned = len(record.tasks), int(record.metrics[metrics.TASKS_LEARNED.name])
    sizes.set_title(f"circuits; {learned} of {asked} tasks learned")
    return figure


def _column(rows: list[dict[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric, where it was logged."""
    logged = [row for row in rows if row.get(name)]
    return [float(row[metrics.STEP.name]) for row in logged], [float(row[name]) for row in logged]
