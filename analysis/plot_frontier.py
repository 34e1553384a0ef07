"""Draw capability against circuit size from finished runs; compare dense and sparse models at matched loss.

    python analysis/plot_frontier.py [runs | wandb=ENTITY/PROJECT] [--sweep NAME]... [--target NATS]
        [--relative] [--text grammar | real] [--out DIR] [--csv DIR]

Writes the figures of `pictures` (PNG and SVG), points.csv and ratios.csv (all targets),
ratios_by_part.csv (the pictures' tasks, well-learned ones, those that a bag of tokens answers, and kinds of
task apart), tasks.csv, kinds.csv (by kind of task), curve.csv, and tables.md to read. With --text, the
default folder is SOURCE/frontier_TEXT, and every pretraining loss in figures and tables is the one on that
text.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from analysis import comparison, frontier, frontier_markdown, pictures, program
from analysis import frontier_tables as tables
from analysis.models import Configuration, Model, Target, configurations, models, on_text, targets
from analysis.program import say
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_text
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
    parser.add_argument("--sweep", action="append", help="only the runs of this sweep; may be repeated")
    parser.add_argument("--target", type=float, default=0.15, help="task loss of the circuits, in nats")
    parser.add_argument("--relative", action="store_true", help="target above the whole model's own loss")
    parser.add_argument(
        "--text",
        choices=metrics.COMPONENTS,
        help="take losses on this part of the validation text",
    )
    parser.add_argument("--out", type=Path, help="folder of the results; default: SOURCE/frontier")
    parser.add_argument("--csv", type=Path, help="folder of the tables; default: that of the figures")
    options = parser.parse_args(arguments)
    remote = options.source.startswith(WANDB)
    target = Target(options.target, "relative" if options.relative else "absolute")
    try:
        records = choose_sweep(load(options.source), options.sweep or [], options.source)
        folder = "frontier"
        if options.text:
            records, folder = _on_text(records, options.text), f"frontier_{options.text}"
        out = options.out or Path("." if remote else options.source) / folder
        report(records, target, out, options.csv or out)
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


def choose_sweep(records: list[RunRecord], sweeps: Sequence[str], source: str) -> list[RunRecord]:
    """Return the runs of `sweeps`; by default those of the only sweep, or all runs without a sweep.

    Raises:
        UserError: one of `sweeps` does not occur, or none is given and there are several to choose from.
    """
    names = sorted({record.sweep for record in records if record.sweep})
    for sweep in sweeps:
        if sweep not in names:
            raise UserError(
                f"--sweep {sweep}: no such sweep in {source}; there: {', '.join(names) or 'none'}"
            )
    if not sweeps and len(names) > 1:
        raise UserError(f"{source} holds several sweeps; choose one by --sweep: {', '.join(names)}")
    wanted = list(sweeps) or names
    chosen = [record for record in records if record.sweep in wanted or not wanted]
    if len(chosen) < len(records):
        say(f"{len(chosen)} of {len(records)} runs, those of the sweep {' and '.join(wanted)}")
    return chosen


def _on_text(records: list[RunRecord], text: str) -> list[RunRecord]:
    """Return the records with their losses on a part of the validation text; leave out those without."""
    found = []
    for record in records:
        try:
            found.append(on_text(record, text))
        except UserError as error:
            say(f"left out: {error}")
    if not found:
        raise UserError(f"--text {text}: no run has a loss on {text} text")
    say(f"all pretraining losses here are on {text} text")
    return found


def report(records: Sequence[RunRecord], target: Target, out: Path, csv: Path) -> None:
    """Print the comparison, write figures to `out` and tables to `csv`; report missing figures.

    Raises:
        UserError: no circuit was found at `target`.
    """
    every = models(records, target)
    if not any(model.edges for model in every):
        if not (known := ", ".join(map(_option, targets(records)))):
            raise UserError(
                f"no circuit in any of {len(every)} runs: to learn more tasks, train longer (trainer.tokens)"
            )
        raise UserError(
            f"--target {_option(target)}: no circuit at this target in any of {len(every)} runs; "
            f"there: {known}"
        )
    for model in every:
        if not model.edges:
            say(f"left out: {_label(model)} has no circuit at {target}")
    compared = configurations(model for model in every if model.edges)
    alike = frontier.comparable(compared)
    tasks = frontier.shared(alike)
    dense = [one for one in compared if one.first.kind == "dense"]
    sparse = [one for one in compared if one.first.kind != "dense"]
    for line in tables.drop_outs(sparse, dense, alike):
        say(line)
    _say_tasks(compared, alike, tasks)

    out.mkdir(parents=True, exist_ok=True)
    csv.mkdir(parents=True, exist_ok=True)
    parts = list(comparison.subsets(sparse, dense, target, tasks))
    ratios = [one for at in targets(records) for one in _ratios(records, at)]
    _say_ratios(sparse, ratios, parts, target)
    written = [
        tables.write(csv / "points.csv", tables.points(records, targets(records))),
        tables.write(csv / "ratios.csv", tables.ratio_rows(ratios), tables.RATIO_COLUMNS),
        tables.write(csv / "ratios_by_part.csv", tables.ratio_rows(parts), tables.RATIO_COLUMNS),
        tables.write(csv / "tasks.csv", to_frame(records)),
    ]
    write_text(csv / "tables.md", frontier_markdown.document(compared, tasks, ratios, parts, target))
    written.append(csv / "tables.md")
    if kinds := frontier.by_kind([model for one in compared for model in one.models]):
        written.append(tables.write(csv / "kinds.csv", (asdict(row) for row in kinds)))
    if tasks:
        figure = pictures.draw_frontier(alike, tasks, target, len(compared) - len(alike))
        written += pictures.save(figure, out, "frontier")
    if pair := frontier.matched_pair(compared):
        rows = frontier.target_curve(records, *pair)
        written.append(tables.write(csv / "curve.csv", (_curve_row(row) for row in rows)))
        if len({row.target for row in rows}) > 1:
            figure = pictures.draw_target_curve(rows, *pair)
            written += pictures.save(figure, out, "circuit_size_vs_target")
        else:
            say("no curve of sizes against the target: the circuits have a single one")
        written += pictures.save(pictures.draw_tasks(*pair, target), out, "edges_per_task")
        say("matched pair: " + "; ".join(f"{one.name}, loss {one.loss:.4f}" for one in pair))
    else:
        lacking = (
            "no dense model" if not dense else "no weight-sparse model" if not sparse else "no shared task"
        )
        say(f"no matched pair of a dense and a weight-sparse model: {lacking}")
    say("wrote " + "\n      ".join(str(path) for path in written))


def _ratios(records: Sequence[RunRecord], target: Target) -> list[comparison.Ratio]:
    compared = configurations(model for model in models(records, target) if model.edges)
    dense = [one for one in compared if one.first.kind == "dense"]
    sparse = [one for one in compared if one.first.kind != "dense"]
    return list(comparison.ratios(sparse, dense, target))


def _say_tasks(
    compared: Sequence[Configuration], alike: Sequence[Configuration], tasks: Sequence[str]
) -> None:
    drawn = [model for one in alike for model in one.models]
    learned = sorted(frozenset.intersection(*(model.learned for model in drawn)))
    of = "" if len(alike) == len(drawn) else f" of {len(alike)} configurations"
    say(f"{len(drawn)} models{of}; {len(learned)} tasks learned by all, {len(tasks)} with a circuit in all:")
    say(f"  {', '.join(tasks) or 'none, so there is no picture of the frontier'}")
    solved = frozenset().union(*(model.solved_by_nothing for model in drawn))
    if without := sorted(set(learned) - set(tasks) - solved):
        say(f"  learned, but without a circuit in some model: {', '.join(without)}")
    if solved:
        say(f"  out, since the circuit without nodes solves them in some model: {', '.join(sorted(solved))}")
    if empty := sorted({task for model in drawn for task in tasks if model.edges.get(task) == 0}):
        say(f"  counted as 1 edge where the circuit has nodes only: {', '.join(empty)}")
    say("")
    every = [model for one in compared for model in one.models]
    say(tables.models_table(every, tasks, alike))
    for n, (low, high) in frontier.baselines(every).items():
        say(f"{n}-gram of as many tokens: {low:.4f}" + (f" to {high:.4f}" if high > low else ""))
    say("")


def _option(target: Target) -> str:
    return f"{target.value:g}" + " --relative" * (target.kind == "relative")


def _label(model: Model) -> str:
    return model.name if model.seed is None else f"{model.name} (seed {model.seed})"


def _say_ratios(
    sparse: Sequence[Configuration],
    ratios: Sequence[comparison.Ratio],
    parts: Sequence[comparison.Ratio],
    target: Target,
) -> None:
    """Print the ratios at `target`, and at its counterpart of the other kind if there is one."""
    for kind in dict.fromkeys((target.kind, "absolute", "relative")):
        at = Target(target.value, kind)
        if not (found := [one for one in ratios if (one.target, one.target_kind) == tuple(at)]):
            continue
        say(
            f"sizes dense / sparse at matched pretraining loss (geometric means, 95 % bootstrap, target {at})"
        )
        say(tables.ratios_table(sparse, found, parts if at == target else ()))
        if over := sorted({one.resampled for one in found if one.resampled}):
            say(f"intervals over {'; '.join(over)}")
        if over and all(one.seeds == 1 for one in found):
            say("one seed each, so the intervals leave out the variation between trainings")
        for line in dict.fromkeys(
            f"{one.sparse_model}: {one.note}" for one in found if one.ratio and one.note
        ):
            say(line)
        say("")


def _curve_row(row: frontier.CurveRow) -> dict[str, object]:
    plain = asdict(row)
    for side in ("dense", "sparse"):
        size, low, high = plain.pop(side)
        plain |= {side: size, f"{side}_low": low, f"{side}_high": high}
    return plain


if __name__ == "__main__":
    start(main)
