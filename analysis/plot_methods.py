"""Draw task loss against edges for every way of finding circuits in one model.

    python analysis/plot_methods.py [runs] [--sweep NAME] [--out DIR]

Needs runs of the same model that differ in pruning.method, pruning.polish or pruning.selection, as
+sweep=methods makes them. At each target loss a method's size is the geometric mean of edges over the tasks
for which all methods have a circuit at that target. Writes methods.png, methods.svg and methods.csv.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone needs no installing

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from analysis.pictures import STYLE, log_axis, save
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.summary import geometric_mean

POLISHED = " + polish"
COLOURS = {"masks": "#D55E00", "gradient": "#0072B2", "integrated": "#009E73"}  # of Okabe and Ito's palette


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
    """A row for each selection, method and target: geometric-mean edges over the tasks all methods share.

    `times` is the size against that of learned masks, polished, at the same selection and target.

    Raises:
        UserError: there are no two methods of one model to compare.
    """
    models = {record.stages.get("model") for record in records}
    if len(records) < 2 or len(models) > 1:
        raise UserError(
            f"{len(records)} runs of {len(models)} models: needed are several runs of one model, "
            "as python -m sparsity_lab.run +sweep=methods -m makes them"
        )
    sizes: dict[tuple[str, float], dict[str, dict[str, int]]] = {}
    for record in records:
        pruning = record.config["pruning"]
        for task in record.tasks:
            for point in task.curve:
                by_method = sizes.setdefault((pruning["selection"], point.target), {})
                method = pruning["method"] + (POLISHED if pruning["polish"] else "")
                by_method.setdefault(method, {})[task.task] = point.edges
    rows = []
    for (selection, target), by_method in sorted(sizes.items()):
        shared = sorted(set.intersection(*(set(edges) for edges in by_method.values())))
        if not shared:
            continue
        size = {method: geometric_mean(edges[task] for task in shared) for method, edges in by_method.items()}
        rows += [
            {
                "selection": selection,
                "target": target,
                "method": method,
                "tasks": len(shared),
                "edges": size[method],
                "times": size[method] / size.get("masks" + POLISHED, float("nan")),
            }
            for method in sorted(size)
        ]
    if not rows:
        raise UserError("no task has a circuit by every method")
    return pd.DataFrame(rows)


def draw(rows: pd.DataFrame) -> Figure:
    """Target loss against geometric-mean edges, a line for each method and selection."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.0, 5.2))
        for key, group in rows.groupby(["method", "selection"], sort=True):
            method, selection = (str(part) for part in key)
            axes.plot(
                group["edges"],
                group["target"],
                marker="o",
                markerfacecolor=None if method.endswith(POLISHED) else "white",
                color=COLOURS.get(method.removesuffix(POLISHED), "#555555"),
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
    sys.exit(main())
