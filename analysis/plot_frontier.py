"""Draw capability against circuit size from finished runs; compare dense and sparse models at matched loss.

    python analysis/plot_frontier.py [runs | wandb=ENTITY/PROJECT] [--sweep NAME] [--target NATS] [--out DIR]

Writes the three figures of `pictures` (PNG and SVG), points.csv, ratios.csv, tasks.csv, kinds.csv (by kind
of task) and curve.csv.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import frontier, pictures, program
from analysis.frontier import Model, Ratio
from analysis.program import say
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.metrics import COMPONENTS
from sparsity_lab.core.program import start
from sparsity_lab.results.frames import to_frame
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.remote import read_wandb
from sparsity_lab.results.runs import read_all

WANDB = "wandb="


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("source", nargs="?", default="runs", help="folder of runs, or wandb=ENTITY/PROJECT")
    parser.add_argument("--sweep", help="only the runs of this sweep")
    parser.add_argument("--target", type=float, default=0.15, help="task loss of the circuits, in nats")
    parser.add_argument("--out", type=Path, help="folder of the results; default: SOURCE/frontier")
    options = parser.parse_args(arguments)
    remote = options.source.startswith(WANDB)
    try:
        records = choose_sweep(load(options.source), options.sweep, options.source)
        report(records, options.target, options.out or Path("." if remote else options.source) / "frontier")
    except UserError as error:
        return program.refuse(error)
    return 0


def load(source: str) -> list[RunRecord]:
    """Load the records of a folder or W&B project; report and skip unreadable ones.

    Raises:
        UserError: there are no records.
    """
    if source.startswith(WANDB):
        records = read_wandb(source.removeprefix(WANDB))
    else:
        records = [record for _, record in read_all(Path(source), lambda error: say(f"left out: {error}"))]
    if not records:
        raise UserError(
            f"{source}: no finished runs here; make some: python -m sparsity_lab.run +sweep=width_l0 -m"
        )
    return records


def choose_sweep(records: list[RunRecord], sweep: str | None, source: str) -> list[RunRecord]:
    """Return the runs of `sweep`; by default those of the only sweep, or all runs without a sweep.

    Raises:
        UserError: `sweep` does not occur, or there are several to choose from.
    """
    names = sorted({record.sweep for record in records if record.sweep})
    if sweep is not None and sweep not in names:
        raise UserError(f"--sweep {sweep}: no such sweep in {source}; there: {', '.join(names) or 'none'}")
    if sweep is None and len(names) > 1:
        raise UserError(f"{source} holds several sweeps; choose one by --sweep: {', '.join(names)}")
    wanted = sweep or (names[0] if names else None)
    chosen = [record for record in records if record.sweep == wanted]
    if len(chosen) < len(records):
        say(f"{len(chosen)} of {len(records)} runs, those of the sweep {wanted}")
    return chosen


def report(records: Sequence[RunRecord], target: float, out: Path) -> None:
    """Print the comparison and write tables and figures to `out`; report missing figures.

    Raises:
        UserError: no circuit was found at `target`.
    """
    compared = frontier.models(records, target)
    if not any(model.edges for model in compared):
        known = ", ".join(f"{value:g}" for value in frontier.targets(records)) or "none"
        raise UserError(
            f"--target {target:g}: no circuit at this target in any of {len(compared)} runs; there: {known}"
        )
    for model in compared:
        if not model.edges:
            say(f"left out: {_label(model)} has no circuit at {target:g} nats")
    compared = [model for model in compared if model.edges]
    alike = frontier.comparable(compared)
    tasks = frontier.shared(alike)
    dense = [model for model in compared if model.kind == "dense"]
    sparse = [model for model in compared if model.kind != "dense"]
    _say_tasks(compared, alike, tasks)

    out.mkdir(parents=True, exist_ok=True)
    ratios = [frontier.ratio(model, dense) for model in sparse]
    dense_alike = [model for model in dense if model in alike]
    on_shared = [frontier.ratio(model, dense_alike, among=tasks) for model in sparse]
    _say_ratios(sparse, ratios, on_shared, target)
    written = [
        _table(out / "points.csv", [_point(model, tasks if model in alike else []) for model in compared]),
        _table(out / "ratios.csv", [_ratio_row(a, b) for a, b in zip(ratios, on_shared, strict=True)]),
        _table(out / "tasks.csv", to_frame(records)),
    ]
    if kinds := frontier.by_kind(compared):
        written.append(_table(out / "kinds.csv", [asdict(row) for row in kinds]))
    if tasks:
        written += pictures.save(pictures.draw_frontier(alike, tasks, target), out, "frontier")
    if pair := frontier.matched_pair(compared):
        rows = frontier.target_curve(records, *pair)
        written.append(_table(out / "curve.csv", [asdict(row) for row in rows]))
        written += pictures.save(pictures.draw_target_curve(rows, *pair), out, "circuit_size_vs_target")
        written += pictures.save(pictures.draw_tasks(*pair, target), out, "edges_per_task")
        say("matched pair: " + "; ".join(f"{_label(model)}, loss {model.loss:.4f}" for model in pair))
    else:
        lacking = (
            "no dense model" if not dense else "no weight-sparse model" if not sparse else "no shared task"
        )
        say(f"no matched pair of a dense and a weight-sparse model: {lacking}")
    say("wrote " + "\n      ".join(str(path) for path in written))


def _say_tasks(compared: Sequence[Model], alike: Sequence[Model], tasks: Sequence[str]) -> None:
    for model in compared:
        if model not in alike:
            count = f"{len(model.edges)} circuit{'s' * (len(model.edges) != 1)}"
            say(f"not compared on shared tasks: {_label(model)} has only {count}")
    learned = sorted(frozenset.intersection(*(model.learned for model in alike)))
    say(f"{len(alike)} models; {len(learned)} tasks learned by all, {len(tasks)} with a circuit in all:")
    say(f"  {', '.join(tasks) or 'none, so there is no picture of the frontier'}")
    solved = frozenset().union(*(model.solved_by_nothing for model in alike))
    if without := sorted(set(learned) - set(tasks) - solved):
        say(f"  learned, but without a circuit in some model: {', '.join(without)}")
    if solved:
        say(f"  out, since the circuit without nodes solves them in some model: {', '.join(sorted(solved))}")
    if empty := sorted({task for model in alike for task in tasks if model.edges[task] == 0}):
        say(f"  counted as 1 edge where the circuit has nodes only: {', '.join(empty)}")
    say("")
    components = [name for name in COMPONENTS if any(name in model.by_component for model in compared)]
    header = ("kind", "d_model", "seed", "nonzeros", "loss", *components, "learned", "circuits", "edges")
    rows = [
        (
            *_about(model),
            *(
                f"{model.by_component[name]:.4f}" if name in model.by_component else "-"
                for name in components
            ),
            str(len(model.learned)),
            str(len(model.edges)),
            f"{frontier.size(model, tasks):,.1f}" if tasks and model in alike else "-",
        )
        for model in compared
    ]
    say(program.table([header, *rows]))
    for n, (low, high) in frontier.baselines(compared).items():
        say(f"{n}-gram of as many tokens: {low:.4f}" + (f" to {high:.4f}" if high > low else ""))
    say("")


def _about(model: Model) -> tuple[str, ...]:
    seed = "-" if model.seed is None else str(model.seed)
    return model.kind, str(model.d_model), seed, f"{model.nonzeros:,}", f"{model.loss:.4f}"


def _label(model: Model) -> str:
    return model.name if model.seed is None else f"{model.name} (seed {model.seed})"


def _say_ratios(
    sparse: Sequence[Model], ratios: Sequence[Ratio], on_shared: Sequence[Ratio], target: float
) -> None:
    if not ratios:
        return
    say(f"edges dense / sparse at matched pretraining loss (geometric means, target {target:g} nats, 95 %)")
    header = (
        "kind",
        "d_model",
        "seed",
        "nonzeros",
        "loss",
        "on the tasks of the three",
        "on the tasks of all",
    )
    rows = [
        (*_about(model), _words(own), _words(common))
        for model, own, common in zip(sparse, ratios, on_shared, strict=True)
    ]
    say(program.table([header, *rows]))
    say("")


def _words(ratio: Ratio) -> str:
    if ratio.ratio is None:
        return ratio.note
    interval = "" if ratio.low is None else f" [{ratio.low:.1f}, {ratio.high:.1f}]"
    return f"{ratio.ratio:.1f}{interval} on {len(ratio.tasks)}"


def _point(model: Model, tasks: Sequence[str]) -> dict[str, Any]:
    row = asdict(model)
    del row["kinds"]
    row |= {f"loss_{name}": loss for name, loss in row.pop("by_component").items()}
    row |= {f"{n}gram": loss for n, loss in row.pop("ngrams").items()}
    for name in ("learned", "solved_by_nothing", "edges"):
        row[name] = len(row[name])
    row["tasks_with_circuit"] = row.pop("edges")
    return row | {
        "tasks_compared": len(tasks),
        "geomean_edges": frontier.size(model, tasks) if tasks else None,
    }


def _ratio_row(own: Ratio, common: Ratio) -> dict[str, Any]:
    row = asdict(own) | {f"shared_{name}": getattr(common, name) for name in ("ratio", "low", "high")}
    row |= {"shared_tasks": common.tasks, "n_tasks": len(own.tasks), "n_shared_tasks": len(common.tasks)}
    return {key: " ".join(value) if isinstance(value, tuple) else value for key, value in row.items()}


def _table(path: Path, rows: "pd.DataFrame | Iterable[dict[str, Any]]") -> Path:
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    frame.to_csv(path, index=False, lineterminator="\n")
    return path


if __name__ == "__main__":
    start(main)
