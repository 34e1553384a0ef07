"""A sweep as far as it has come: loss against size of the circuits, a point for each run that has ended.

A glance while the sweep runs; `analysis/plot_frontier.py` draws the frontier, on the tasks that all share.
"""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from sparsity_lab.core import metrics
from sparsity_lab.results.record import RunRecord, read_all
from sparsity_lab.results.run_picture import BRIGHT, DARK


def draw_sweep(sweep: Path, target: float, path: Path) -> Path:
    """Write the picture of the records below the folder `sweep` as PNG to `path`; returns it."""
    records = [record for _, record in read_all(sweep, on_error=lambda error: None)]
    with rc_context({"text.parse_math": False}):  # names are drawn as they are (S12)
        figure = _figure(records, target)
        figure.savefig(path, dpi=100, metadata={"Software": None})
    return path


def _figure(records: list[RunRecord], target: float) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    needed = (metrics.GEOMEAN_EDGES.name, metrics.VALIDATION_LOSS.name)
    drawn = [record for record in records if all(name in record.metrics for name in needed)]
    for kind, colour, marker in (("dense", DARK, "s"), ("sparse", BRIGHT, "o")):
        points = [
            [record.metrics[name] for name in needed]
            for record in drawn
            if record.config.get("sparsity", {}).get("kind") == kind
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, label=kind)
    for record in drawn:
        x, y = (record.metrics[name] for name in needed)
        axes.annotate(record.name, (x, y), (4, 4), textcoords="offset points", fontsize=7)
    if drawn:
        axes.legend()
    axes.set(
        xscale="log",
        xlabel=f"edges (geometric mean over each model's own tasks, target {target:g} nats)",
        ylabel="validation loss (nats per token)",
        title=f"{len(records)} runs have ended, {len(drawn)} of them with circuits",
    )
    return figure
