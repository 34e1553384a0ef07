"""Draw circuits over training: their size, their overlap with the final circuits, and the L0 schedule.

    python analysis/plot_formation.py RUN_OR_SWEEP [--out DIR]

Needs runs with snapshots.fractions, as in experiment=formation. Overlap is the Jaccard index of the nodes
of a circuit and of the trained model's. Writes formation.png, .svg and .csv.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import program
from analysis.pictures import save
from analysis.program import say
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.results.drawing import Axes, Figure, mpl
from sparsity_lab.results.record import METRICS_FILE, RunRecord, TaskResult
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.style import GREY, SERIES, STYLE, log_axis, plain
from sparsity_lab.results.summary import geometric_mean

MARKERS = "osD^vP"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("source", type=Path, help="a run's folder, or a sweep's")
    parser.add_argument("--out", type=Path, help="folder of the results; default: SOURCE/formation")
    options = parser.parse_args(arguments)
    try:
        rows, schedules, targets = load(options.source)
    except UserError as error:
        return program.refuse(error)
    out = options.out or options.source / "formation"
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "formation.csv", index=False, lineterminator="\n")
    say(rows.to_string(index=False))
    for path in [out / "formation.csv", *save(draw(rows, schedules, targets), out, "formation")]:
        say(str(path))
    return 0


def load(source: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], dict[str, float]]:
    """Load one row per run, task and snapshot, and each run's training curve and target loss by name.

    Raises:
        UserError: no run has snapshots, or a run lacks its curve.
    """
    runs = [(folder, record) for folder, record in read_all(source) if record.snapshots]
    if not runs:
        raise UserError(
            f"{source}: no run with circuits on the way; make one: sparsity_lab.run experiment=formation"
        )
    rows = pd.DataFrame([row for _, record in runs for row in moments(record)])
    curves = {record.name: curve(folder / METRICS_FILE) for folder, record in runs}
    return rows, curves, {record.name: record.pruning.target for _, record in runs}


def curve(path: Path) -> pd.DataFrame:
    """Read nonzero weights and validation loss over training steps.

    Raises:
        UserError: the file is missing or is not a metrics file.
    """
    names = [metrics.STEP.name, metrics.NONZEROS.name, metrics.VALIDATION_LOSS.name]
    try:
        return pd.read_csv(path)[names]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a training's metrics ({error})") from None


def moments(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield a row per task and snapshot: the circuit's size and its overlap with the final circuit.

    `jaccard` is the overlap of nodes with the final circuit. `there` is the share of the final circuit's
    nodes that are already in the circuit.
    """
    target = record.pruning.target
    at_the_end = {task.task: task.at(target) for task in record.tasks}
    ways = [
        *((s.fraction, s.step, s.nonzeros, s.tasks, s.shared) for s in record.snapshots),
        _end(record, {task: found.nodes for task, found in at_the_end.items() if found}),
    ]
    for at, step, nonzeros, tasks, shared in ways:
        for task in tasks:
            found, final = task.at(target), at_the_end.get(task.task)
            row: dict[str, Any] = {
                "name": record.name,
                "task": task.task,
                "at": at,
                "step": step,
                "nonzeros": nonzeros,
                "status": task.status,
                "unpruned_loss": task.unpruned.raw_loss if task.unpruned else None,
                "nodes": found.nodes if found else None,
                "edges": found.edges if found else None,
                "shared": shared.get(task.task),
                "jaccard": None,
                "there": None,
            }
            if found and final and task.task in shared:
                both = shared[task.task]
                row["jaccard"] = both / max(1, found.nodes + final.nodes - both)
                row["there"] = both / max(1, final.nodes)
            yield row


def _end(
    record: RunRecord, nodes: dict[str, int]
) -> tuple[float, int, int, tuple[TaskResult, ...], dict[str, int]]:
    last = record.snapshots[-1]
    steps = round(last.step / last.fraction)
    return 1.0, steps, int(record.metrics[metrics.MODEL_NONZEROS.name]), record.tasks, nodes


def draw(rows: pd.DataFrame, schedules: dict[str, pd.DataFrame], targets: dict[str, float]) -> Figure:
    """Draw a column per run: edges of circuits, overlap with the final ones, task loss, and L0."""
    tasks = sorted(set(rows["task"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 5.5 * len(schedules), 9.5))
        panels = figure.subplots(
            4,
            len(schedules),
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=(3, 2, 2, 1.4),
        )
        for column, (name, schedule) in enumerate(schedules.items()):
            of_run = rows[rows["name"] == name]
            _column(list(panels[:, column]), of_run, schedule, tasks, targets[name])
            panels[0][column].set_title(plain(name), loc="left")
        panels[0][0].set_ylabel("Edges in the circuit")
        panels[1][0].set_ylabel("Overlap with the\nfinal circuit's nodes")
        panels[2][0].set_ylabel("Task loss of the\nwhole model (nats)")
        panels[3][0].set_ylabel("Nonzero weights")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
        return figure


def _column(
    panels: Sequence[Axes], rows: pd.DataFrame, schedule: pd.DataFrame, tasks: Sequence[str], target: float
) -> None:
    """Draw one run. The line of a task has a gap where the task has no circuit."""
    sizes, overlaps, losses, weights = panels
    every = sorted(set(rows["at"]))
    for index, task in enumerate(tasks):
        of_task = rows[rows["task"] == task].set_index("at").reindex(every)
        style: Any = {
            "color": SERIES[index % len(SERIES)],
            "marker": MARKERS[index % len(MARKERS)],
            "linewidth": 1.2,
        }
        sizes.plot(every, of_task["edges"].astype(float).clip(lower=1), label=plain(task), **style)
        overlaps.plot(every, of_task["jaccard"].astype(float), **style)
        losses.plot(every, of_task["unpruned_loss"].astype(float), **style)
    found = rows.dropna(subset=["edges"])
    means = geometric_means(found)
    if len(means):
        label = f"geometric mean of the {means.attrs['tasks']} found whenever one is"
        sizes.plot(every, means.reindex(every), color="black", marker=".", linewidth=2.5, label=label)
    there = found.dropna(subset=["there"]).groupby("at")["there"].mean()
    label = "share of the final nodes that are there already (mean)"
    overlaps.plot(
        every, there.reindex(every), color="black", marker=".", linestyle=":", linewidth=2, label=label
    )
    overlaps.legend(loc="lower left", fontsize=8)
    overlaps.set_ylim(0, 1.05)
    losses.axhline(target, color="black", linestyle="--", linewidth=1)
    losses.annotate("learned below", (0, target), (3, -11), textcoords="offset points", fontsize=8)
    nonzeros = schedule.dropna(subset=[metrics.NONZEROS.name])
    steps = float(rows["step"].max())
    weights.plot(nonzeros[metrics.STEP.name] / steps, nonzeros[metrics.NONZEROS.name], color=GREY)
    points = rows.drop_duplicates("at")
    weights.plot(points["at"], points["nonzeros"], "o", color=GREY)
    for axes in (sizes, losses, weights):
        log_axis(axes, "y")
    weights.set_xlim(0, 1.02)
    weights.set_xlabel("Fraction of training")


def geometric_means(found: pd.DataFrame) -> pd.Series:
    """Average edges per snapshot, over tasks with a circuit in every snapshot that has any."""
    moments_of = found.groupby("task")["at"].nunique()
    tasks = moments_of.index[moments_of == found["at"].nunique()]
    always = found[found["task"].isin(tasks)]
    means = always.groupby("at")["edges"].apply(lambda edges: geometric_mean(float(e) for e in edges))
    means.attrs["tasks"] = len(tasks)
    return means


if __name__ == "__main__":
    start(main)
