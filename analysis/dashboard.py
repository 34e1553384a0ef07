"""Build the W&B workspace of a project: frontier, training curves, tasks, circuit sizes, runs that failed.

    python analysis/dashboard.py ENTITY/PROJECT [--sweep NAME] [--check]

Needs sparsity_lab[dashboard]. `--check` builds and validates the workspace without a server and prints its
sections.
"""

from collections.abc import Sequence
from typing import Any

from analysis import program
from analysis.program import say
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start

NAME = "sparsity_lab"
LINES = "wandb/lineseries/v0"  # W&B's chart for wandb.plot.line_series
CURVES = (
    metrics.TRAIN_LOSS,
    metrics.VALIDATION_LOSS,
    *metrics.COMPONENT_LOSS.values(),
    metrics.KEPT_FRACTION,
    metrics.NONZEROS,
    metrics.DEAD_NEURONS,
    metrics.GRADIENT_RMS,
    metrics.LEARNING_RATE,
    metrics.THROUGHPUT,
    metrics.KURTOSIS,
)
COUNTS = (metrics.TASKS_ASKED, metrics.TASKS_LEARNED, metrics.TASKS_SOLVED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("project", help="ENTITY/PROJECT")
    parser.add_argument("--sweep", help="only the runs of this sweep")
    parser.add_argument("--check", action="store_true", help="build and validate only")
    options = parser.parse_args(arguments)
    try:
        built = workspace(options.project, options.sweep)
        if not options.check:
            say(f"saved: {save(built)}")
    except UserError as error:
        return program.refuse(error)
    for section in built.sections:
        say(f"{section.name}: {len(section.panels)} panels")
    return 0


def workspace(project: str, sweep: str | None = None) -> Any:
    """Build and validate the workspace without saving it.

    Raises:
        UserError: `project` is not ENTITY/PROJECT, or wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError("wandb-workspaces: not installed: pip install 'sparsity_lab[dashboard]'") from None
    entity, _, name = project.partition("/")
    if not entity or not name or "/" in name:
        raise UserError(f"{project}: expected ENTITY/PROJECT")

    def summary(metric: metrics.Metric) -> Any:
        return wr.SummaryMetric(metric.name)

    sizes = (metrics.GEOMEAN_NODES, metrics.GEOMEAN_EDGES, metrics.GEOMEAN_PRUNED_EDGES)
    loss = metrics.VALIDATION_LOSS
    sections: dict[str, list[Any]] = {
        "Frontier (lower left is better)": [
            wr.ScatterPlot(
                title=f"{loss.name} ({loss.unit}) against {size.name}",
                x=summary(size), y=summary(loss), z=summary(metrics.MODEL_NONZEROS), log_x=True, log_z=True,
            )
            for size in sizes
        ] + [wr.MediaBrowser(title="As jobs finish", media_keys=["plots/sweep"])],
        "Training": [
            wr.LinePlot(title=f"{metric.name} ({metric.unit})", x=metrics.STEP.name, y=[metric.name])
            for metric in CURVES
        ],
        "Tasks": [
            wr.WeavePanelSummaryTable(table_name="tasks"),
            wr.BarPlot(title="Tasks asked, learned, with a circuit", metrics=[summary(m) for m in COUNTS]),
        ],
        "Circuit sizes": [
            wr.CustomChart(query={"summaryTable": {"tableKey": "circuit_sizes_table"}}, chart_name=LINES),
            wr.MediaBrowser(title="Each run", media_keys=["plots/run"]),
        ],
        "Failures": [
            wr.MarkdownPanel(
                markdown="The list of runs is grouped by state: see *failed* and *crashed*. The logs in the "
                "sweep's folder give the reason. To resume, repeat the command."
            ),
            wr.RunComparer(diff_only="split"),
        ],
    }  # fmt: skip
    filters = [ws.Metric("Group") == sweep] if sweep else []
    return ws.Workspace(
        entity=entity,
        project=name,
        name=NAME if sweep is None else f"{NAME} {sweep}",
        sections=[
            ws.Section(name=title, panels=panels, is_open=index < 2)
            for index, (title, panels) in enumerate(sections.items())
        ],
        settings=ws.WorkspaceSettings(x_axis=metrics.STEP.name, max_runs=50),
        runset_settings=ws.RunsetSettings(filters=filters, groupby=[ws.Metric("State")]),
    )


def save(built: Any) -> str:
    """Save a workspace on the W&B server; return its URL.

    Raises:
        UserError: there is no API key, or the server rejects the workspace.
    """
    import requests
    import wandb

    try:
        return str(built.save().url)
    except (wandb.Error, requests.RequestException, OSError, ValueError, AttributeError) as error:
        raise UserError(f"W&B did not take the workspace ({error}); --check needs no server") from None


if __name__ == "__main__":
    start(main)
