"""Compare the circuits of models task by task, whatever their losses.

    python analysis/compare_models.py BASE=FOLDER[,FOLDER...] NAME=FOLDER[,FOLDER...] ...
        [--target NATS] [--relative] [--csv FILE]

Each argument names one side, and the folders of runs or records that are its seeds. For each measure the
program prints the geometric mean of size / size of the first side. It is taken over the tasks for which every
side has a circuit. The 95 % intervals are a bootstrap over the seeds of both sides and then over kinds of
task (fewer than four kinds: over tasks). `excess` is the loss above that of the first side, in nats a token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from analysis import envelope, program
from analysis import frontier_tables as tables
from analysis.comparison import clusters_of, sample
from analysis.models import MEASURES, Configuration, Target, models, targets
from analysis.program import say
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.results.runs import read_all


@dataclass(frozen=True)
class Relation:
    """The sizes of one side's circuits over those of the base, with a 95 % interval.

    `loss` is the side's mean pretraining loss, `excess` what it is above the base's, in nats per token. `low`
    and `high` are None if there is nothing to resample, and `resampled` is then empty.
    """

    model: str
    base: str
    loss: float
    excess: float
    measure: str
    ratio: float
    low: float | None
    high: float | None
    tasks: int
    seeds: int
    base_seeds: int
    resampled: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument(
        "sides", nargs="+", help="NAME=FOLDER[,FOLDER...]: a side's seeds; the first is the base"
    )
    parser.add_argument("--target", type=float, default=0.15, help="task loss of the circuits, in nats")
    parser.add_argument("--relative", action="store_true", help="target above the whole model's own loss")
    parser.add_argument("--csv", type=Path, help="file of the table")
    options = parser.parse_args(arguments)
    target = Target(options.target, "relative" if options.relative else "absolute")
    try:
        if options.csv and options.csv.is_dir():
            raise UserError(f"--csv {options.csv}: is a folder; give a file")
        found = list(relations([read_side(text, target) for text in options.sides]))
    except UserError as error:
        return program.refuse(error)
    say(f"sizes over those of {found[0].base} (geometric means, 95 % bootstrap, target {target})")
    say(laid_out(found))
    if over := sorted({one.resampled for one in found if one.resampled}):
        say(f"intervals over {'; '.join(over)}")
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        say(f"wrote {tables.write(options.csv, (asdict(one) for one in found))}")
    return 0


def read_side(text: str, target: Target) -> Configuration:
    """Return the models that `NAME=FOLDER[,FOLDER...]` names, with their circuits at `target`.

    Raises:
        UserError: the text has another form, a folder has no record, or a model has no circuit at `target`.
    """
    name, _, folders = text.partition("=")
    if not name or not folders:
        raise UserError(f"{text}: a side is given as NAME=FOLDER[,FOLDER...]")
    found = []
    for folder in folders.split(","):
        records = [record for _, record in read_all(Path(folder))]
        if len(records) != 1:
            raise UserError(f"{folder}: holds {len(records)} records; name the folder of one run")
        own = [model for model in models(records, target) if model.edges]
        if not own:
            known = ", ".join(map(str, targets(records))) or "none"
            raise UserError(f"{folder}: has no circuit at {target}; there: {known}")
        found += own
    if len({model.id for model in found}) < len(found):
        raise UserError(f"{text}: names a run twice")
    return Configuration(name, tuple(found))


def relations(sides: Sequence[Configuration]) -> Iterator[Relation]:
    """Yield the sizes of each further side over those of the first, in every measure that all have.

    Raises:
        UserError: there is a single side, or no task for which all have a circuit.
    """
    base, *others = sides
    if not others:
        raise UserError(f"nothing to compare {base.name} with: give another NAME=FOLDER[,FOLDER...]")
    for measure in MEASURES:
        tasks = sorted(set.intersection(*(set().union(*side.of(measure)) for side in sides)))
        if not tasks and measure == "edges":
            raise UserError(f"no task for which {', '.join(side.name for side in sides)} all have a circuit")
        if tasks:
            yield from (relation(base, side, measure, tasks) for side in others)


def relation(base: Configuration, side: Configuration, measure: str, tasks: Sequence[str]) -> Relation:
    """Compare two sides on `tasks`. Both levels of the bootstrap are those of the frontier."""
    pair = [sample(one, tasks, measure) for one in (base, side)]
    ratio = float(np.exp(_log_ratio(pair, None, np.ones((1, len(tasks))))[0]))
    clusters, over = clusters_of(side, tasks, tasks)
    many_seeds = max(base.seeds, side.seeds) > 1
    low, high, resampled = None, None, ""
    if many_seeds or len(set(clusters)) > 1:
        generator = np.random.default_rng(0)
        picks = [envelope.pick_seeds(one, generator, envelope.DRAWS) for one in pair]
        logs = _log_ratio(pair, picks, envelope.pick_clusters(clusters, generator, envelope.DRAWS))
        low, high = envelope.interval(
            logs[~np.isnan(logs)]
        )  # a draw of seeds may lack a circuit for every task
        resampled = f"seeds and {over}" if many_seeds else over
    return Relation(
        model=side.name,
        base=base.name,
        loss=side.loss,
        excess=side.loss - base.loss,
        measure=measure,
        ratio=ratio,
        low=low,
        high=high,
        tasks=len(tasks),
        seeds=side.seeds,
        base_seeds=base.seeds,
        resampled=resampled,
    )


def _log_ratio(
    pair: Sequence[envelope.Sample], picks: Sequence[envelope.Array] | None, times_bt: envelope.Array
) -> envelope.Array:
    """Return the log ratio of the second to the first (b), in all draws of seeds and tasks."""
    base, side = (
        envelope.average(one, None if picks is None else picks[index]) for index, one in enumerate(pair)
    )
    return envelope.side_by_side(base, side, times_bt)


def laid_out(found: Sequence[Relation]) -> str:
    """Return a table with a row for each side and a column for each measure."""
    measures = [measure for measure in MEASURES if any(one.measure == measure for one in found)]
    header = ["model", "seeds", "base's seeds", "loss", "excess"]
    header += [f"{MEASURES[measure]} ({_tasks(found, measure)} tasks)" for measure in measures]
    rows = []
    for name in dict.fromkeys(one.model for one in found):
        own = {one.measure: one for one in found if one.model == name}
        first = own[measures[0]]
        about = name, str(first.seeds), str(first.base_seeds), f"{first.loss:.3f}", f"{first.excess:+.3f}"
        rows.append([*about, *(_words(own[measure]) for measure in measures)])
    return program.table([header, *rows])


def _tasks(found: Sequence[Relation], measure: str) -> int:
    return next(one.tasks for one in found if one.measure == measure)


def _words(one: Relation) -> str:
    return f"{one.ratio:.2f}" + ("" if one.low is None else f" [{one.low:.2f}, {one.high:.2f}]")


if __name__ == "__main__":
    start(main)
