"""Draw task loss against edges for each method of finding circuits in one model.

    python analysis/plot_methods.py [runs] [--sweep NAME] [--out DIR]

Needs runs of the same model that differ in finder, pruning.polish or pruning.selection, as +sweep=methods
makes them. At each target loss a method's size is the geometric mean of edges over the tasks for which all
methods have a circuit at that target; where edges were pruned, the table has their number as well. Writes
methods.png, methods.svg and methods.csv.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # allows running from a clone

from analysis.pictures import STYLE, log_axis, save
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.results.drawing import Figure, mpl
from sparsity_lab.results.record import CurvePoint, RunRecord
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.summary import geometric_mean

POLISHED = " + polish"
# Okabe and Ito's palette: fixed colours for the shipped finders, then colours for others
COLOURS = {"masks": "#D55E00", "gradient": "#0072B2", "integrated": "#009E73"}
MORE_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("source", nargs="?", type=Path, default=Path("runs"), help="folder of runs")
    parser.add_argument("--sweep", default="methods", help="the runs of this sweep")
    parser.add_argument("--out", type=Path, help="folder of the results; default: SOURCE/methods")
    options = parser.parse_args(arguments)
    try:
        records = [record for _, record in read_all(options.source) if record.sweep == options.sweep]
        rows = compare(records)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    out = options.out or options.source / "methods"
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "methods.csv", index=False)
    sys.stdout.write(rows.to_string(index=False) + "\n")
    for path in [out / "methods.csv", *save(draw(rows), out, "methods")]:
        sys.stdout.write(f"{path}\n")
    return 0


def compare(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return geometric-mean edges over shared tasks, one row per selection, method and target.

    `times` is the size relative to polished learned masks at the same selection and target.

    Raises:
        UserError: the runs are not of at least two methods on one model.
    """
    models = {record.stages.get("model") for record in records}
    if len(records) < 2 or len(models) > 1:
        raise UserError(
            f"{len(records)} runs of {len(models)} models: needed are several runs of one model, "
            "as python -m sparsity_lab.run +sweep=methods -m makes them"
        )
    points: dict[tuple[str, float], dict[str, dict[str, CurvePoint]]] = {}
    for record in records:
        pruning = record.config["pruning"]
        method = finder_of(record) + (POLISHED if pruning["polish"] else "")
        for task in record.tasks:
            for point in task.curve:
                by_method = points.setdefault((pruning["selection"], point.target), {})
                by_method.setdefault(method, {})[task.task] = point
    rows = []
    for (selection, target), by_method in sorted(points.items()):
        shared = sorted(set.intersection(*(set(by_task) for by_task in by_method.values())))
        if not shared:
            continue
        size = {
            method: geometric_mean(by_task[task].edges for task in shared)
            for method, by_task in by_method.items()
        }
        rows += [
            {
                "selection": selection,
                "target": target,
                "method": method,
                "tasks": len(shared),
                "edges": size[method],
                "pruned_edges": _pruned(by_method[method][task] for task in shared),
                "times": size[method] / size.get("masks" + POLISHED, float("nan")),
            }
            for method in sorted(size)
        ]
    if not rows:
        raise UserError("no task has a circuit by every method")
    return pd.DataFrame(rows)


def finder_of(record: RunRecord) -> str:
    """Return the finder's name: the slope of attribution, or the stem of a user's file."""
    finder = record.config.get("finder")
    if finder is None:  # old records have no section for the finder
        return str(record.config["pruning"]["method"])
    path = finder.get("path")
    return Path(path).stem if path else str(finder.get("slope", finder["kind"]))


def _pruned(points: Iterable[CurvePoint]) -> float:
    """Average the edges after edge pruning geometrically; NaN without edge pruning."""
    edges = [point.pruned_edges for point in points]
    pruned = [count for count in edges if count is not None]
    return geometric_mean(pruned) if len(pruned) == len(edges) else float("nan")


def colours(methods: Iterable[str]) -> dict[str, str]:
    """Assign each finder its fixed colour or the next free one."""
    finders = sorted({method.removesuffix(POLISHED) for method in methods})
    free = cycle(MORE_COLOURS)
    return {finder: COLOURS.get(finder) or next(free) for finder in finders}


def draw(rows: pd.DataFrame) -> Figure:
    """Draw target loss against geometric-mean edges, one line per method and selection."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 5.2))
        axes = figure.subplots()
        colour = colours(rows["method"])
        for key, group in rows.groupby(["method", "selection"], sort=True):
            method, selection = (str(part) for part in key)
            axes.plot(
                group["edges"],
                group["target"],
                marker="o",
                markerfacecolor=None if method.endswith(POLISHED) else "white",
                color=colour[method.removesuffix(POLISHED)],
                linestyle="-" if selection == "raw" else ":",
                label=f"{method}, {selection} loss",
            )
        axes.set(xlabel="Edges in the circuit (geometric mean)", ylabel="Task loss (nats)")
        log_axis(axes, "x")
        counts = sorted(set(rows["tasks"]))
        over = f"{counts[0]} tasks" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} tasks, as shared"
        axes.set_title(f"Task loss against edges, by method ({over})", loc="left")
        figure.legend(loc="outside lower center", ncols=2)
        return figure


if __name__ == "__main__":
    start(main)
