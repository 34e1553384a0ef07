"""Draw a sweep's progress: loss against circuit size, one marker per finished run.

This is a preview while the sweep runs. `analysis/plot_frontier.py` draws the frontier on shared tasks.
"""

from pathlib import Path

from sparsity_lab.core import metrics
from sparsity_lab.results.drawing import Figure, rc_context
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.style import KINDS, STYLE, log_axis, plain


def draw_sweep(sweep: Path, target: float, path: Path) -> Path:
    """Draw the records below the folder `sweep` as a PNG at `path`; return `path`."""
    records = [record for _, record in read_all(sweep, on_error=lambda error: None)]
    with rc_context(STYLE):
        sweep_figure(records, target).savefig(path, dpi=120, metadata={"Software": None})
    return path


def sweep_figure(records: list[RunRecord], target: float) -> Figure:
    """Plot the runs. Imported models are left out, because they were trained on other text."""
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    needed = (metrics.GEOMEAN_EDGES.name, metrics.VALIDATION_LOSS.name)
    drawn = [r for r in records if r.kind in KINDS and all(name in r.metrics for name in needed)]
    for kind, (colour, marker) in KINDS.items():
        points = [[record.metrics[name] for name in needed] for record in drawn if record.kind == kind]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, label=kind)
    for record in drawn:
        x, y = (record.metrics[name] for name in needed)
        axes.annotate(plain(record.name), (x, y), (4, 4), textcoords="offset points", fontsize=7)
    log_axis(axes, "x")
    axes.set_xlabel(f"edges (geometric mean over each model's own tasks, target {target:g} nats)")
    axes.set_ylabel("validation loss (nats per token)")
    axes.set_title(f"{len(records)} runs have ended, {len(drawn)} of them with circuits", loc="left")
    if drawn:
        axes.legend()
    return figure
