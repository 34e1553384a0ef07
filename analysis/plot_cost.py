"""Draw validation loss against training time, and tell what each run cost.

    python analysis/plot_cost.py [RUNS_OR_SWEEP ...] [--sweep NAME] [--out DIR]

A run's curve is in its metrics.csv, its seconds in its timings.json. Seconds can be compared only between
runs of the same machine with the same number of threads. Writes cost.png, .svg and .csv.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import program
from analysis.pictures import save
from analysis.program import say
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.program import start
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.results.drawing import Figure, mpl
from sparsity_lab.results.frames import setting
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.style import SERIES, STYLE, log_axis, plain, short

HOUR = 3600
SECONDS = "seconds"
STYLES = {"none": "--", "magnitude": "-", "amortised": "-."}  # of a line, by the method of training


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument(
        "sources", type=Path, nargs="*", default=[Path("runs")], help="folders of runs or records"
    )
    parser.add_argument("--sweep", help="only the runs of this sweep")
    parser.add_argument("--out", type=Path, default=Path("runs/cost"), help="folder of the results")
    options = parser.parse_args(arguments)
    try:
        found = [each for source in options.sources for each in load(source, options.sweep)]
        if not found:
            raise UserError(
                f"{', '.join(map(str, options.sources))}: no finished run with its training's curve"
            )
    except UserError as error:
        return program.refuse(error)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame([row for row, _ in found]).sort_values(["kind", "d_model", "nonzeros"])
    rows.to_csv(options.out / "cost.csv", index=False, lineterminator="\n")
    say(rows.to_string(index=False))
    if unknown := int(rows["core_hours"].isna().sum()):
        say(f"{unknown} of {len(rows)} runs do not tell their number of threads, and so no core hours")
    if unknown < len(rows):
        say(f"together {rows['core_hours'].sum():.1f} core hours")
    for path in [options.out / "cost.csv", *save(draw(found), options.out, "cost")]:
        say(str(path))
    return 0


def load(source: Path, sweep: str | None = None) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield what each run under `source` cost, with its validation losses over time.

    Runs whose model was trained by another run have no curve of their own and are left out.

    Raises:
        UserError: `source` is not a folder of runs, or a file there is unreadable.
    """
    for path, record in read_all(source):
        folder = RunFolder(path)
        if sweep in (None, record.sweep) and folder.metrics.exists() and folder.timings.exists():
            curve = losses(folder.metrics)
            if len(curve):
                yield cost(record, read_json(folder.timings), curve), curve


def losses(path: Path) -> pd.DataFrame:
    """Read `seconds` of training and the validation loss at each validation of a training.

    The file tells the mean speed since the training was started, or last resumed. A resumed training counts
    as if it had run at that speed from its beginning.

    Raises:
        UserError: the file is not a training's metrics.
    """
    step, loss = metrics.STEP.name, metrics.VALIDATION_LOSS.name
    try:
        rows = pd.read_csv(path, dtype=float)
        trained = rows.dropna(subset=[metrics.THROUGHPUT.name])
        seconds = trained[metrics.TOKENS.name] / trained[metrics.THROUGHPUT.name]
        last = pd.DataFrame({step: trained[step], SECONDS: seconds})
        return pd.merge_asof(rows.dropna(subset=[loss])[[step, loss]], last, on=step).dropna()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a training's metrics ({error})") from None


def cost(record: RunRecord, timings: Mapping[str, float], curve: pd.DataFrame) -> dict[str, Any]:
    """Return a run's row: what the model is, its loss, and the seconds of its parts.

    `core_hours` are of training, circuits and all else, times the threads of the run. They are empty where
    the run took all cores of its machine, whose number is not on record.
    """
    trained = float(curve[SECONDS].iloc[-1])
    rest = sum(seconds for part, seconds in timings.items() if part not in ("train", "circuits"))
    found = timings.get("circuits", 0.0)
    threads = record.config.get("threads")
    return {
        "name": record.name,
        "kind": record.kind,
        "sparsity": setting(record, "sparsity", "kind"),
        "d_model": record.model.d_model,
        "nonzeros": int(record.metrics[metrics.MODEL_NONZEROS.name]),
        "seed": record.seeds.get("seed"),
        "tokens": record.model.tokens,
        "loss": record.metrics.get(metrics.VALIDATION_LOSS.name),
        "threads": threads,
        "train_seconds": round(trained),
        "circuits_seconds": round(found),
        "other_seconds": round(rest),
        "core_hours": round((trained + found + rest) * threads / HOUR, 3) if threads else None,
    }


def draw(found: Sequence[tuple[Mapping[str, Any], pd.DataFrame]]) -> Figure:
    """Draw a line per run: a colour per width, a style per method of training, nonzeros at its end."""
    widths = sorted({row["d_model"] for row, _ in found})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 5.5))
        axes = figure.subplots()
        for row, curve in found:
            axes.plot(
                curve[SECONDS],
                curve[metrics.VALIDATION_LOSS.name],
                color=SERIES[widths.index(row["d_model"]) % len(SERIES)],
                linestyle=STYLES.get(row["sparsity"], ":"),
                marker="o",
                markersize=3,
                label=plain(label(row)),
            )
            if row["kind"] != "dense":  # sparse models of one width and method look alike
                end = curve.iloc[-1]
                at = end[SECONDS], end[metrics.VALIDATION_LOSS.name]
                axes.annotate(short(row["nonzeros"]), at, (4, 0), textcoords="offset points", fontsize=8)
        log_axis(axes, "x")
        axes.set_xlabel("Seconds of training")
        axes.set_ylabel("Validation loss (nats per token)")
        figure.legend(loc="outside right upper", fontsize=8)
        return figure


def label(row: Mapping[str, Any]) -> str:
    """Name a line by the model's kind, width, nonzeros, method, tokens and seed."""
    weights = f", {short(row['nonzeros'])} nonzeros, {row['sparsity']}" if row["kind"] != "dense" else ""
    tokens = f", {short(row['tokens'])} tokens" if row["tokens"] else ""
    seed = f", seed {row['seed']}" if row["seed"] else ""
    return f"{row['kind']} {row['d_model']}{weights}{tokens}{seed}"


if __name__ == "__main__":
    start(main)
