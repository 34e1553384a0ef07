"""Compare circuits of models of one kind with those of one of them, task by task, whatever their losses.

    python analysis/compare_models.py BASE RUNS_OR_RECORDS ... [--target NATS] [--relative] [--csv FILE]

BASE is the name of a configuration as in points.csv: of models that differ in their seeds alone. For each
other configuration that was trained on as many tokens, and each measure, prints the geometric mean of
size / size of BASE over the tasks that both have, with 95 % intervals over seeds and then over kinds of task,
and the difference of losses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from analysis import envelope, program
from analysis import frontier_tables as tables
from analysis.comparison import clusters_of, sample
from analysis.models import MEASURES, Configuration, Target, configurations, models
from analysis.program import say
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.results.runs import read_all


@dataclass(frozen=True)
class Relation:
    """The sizes of a configuration's circuits over those of another.

    `loss` is the configuration's mean pretraining loss, `excess` what it is above the other's, in nats per
    token. `low` and `high` are None if there is nothing to resample.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("base", help="name of the configuration that the others are compared with")
    parser.add_argument("sources", type=Path, nargs="+", help="folders of runs or records")
    parser.add_argument("--target", type=float, default=0.15, help="task loss of the circuits, in nats")
    parser.add_argument("--relative", action="store_true", help="target above the whole model's own loss")
    parser.add_argument("--csv", type=Path, help="file of the table")
    options = parser.parse_args(arguments)
    target = Target(options.target, "relative" if options.relative else "absolute")
    try:
        records = [record for source in options.sources for _, record in read_all(source)]
        known = [one for one in configurations(models(records, target)) if one.tasks]
        found = list(relations(choose(known, options.base), known))
    except UserError as error:
        return program.refuse(error)
    say(f"sizes over those of {options.base} (geometric means, 95 % bootstrap, target {target})")
    say(laid_out(found))
    if options.csv:
        tables.write(options.csv, (asdict(one) for one in found))
        say(f"wrote {options.csv}")
    return 0


def choose(known: Sequence[Configuration], name: str) -> Configuration:
    """Return the configuration of this name.

    Raises:
        UserError: there is none, or more than one.
    """
    found = [one for one in known if one.name == name]
    if len(found) != 1:
        among = ", ".join(sorted(one.name for one in known)) or "none"
        raise UserError(f"{name}: {'several' if found else 'no'} such configuration; there: {among}")
    return found[0]


def relations(base: Configuration, known: Sequence[Configuration]) -> Iterator[Relation]:
    """Yield the sizes over those of `base` of every other configuration of its kind and training tokens."""
    for one in known:
        alike = (one.first.kind, one.first.tokens) == (base.first.kind, base.first.tokens)
        if one is not base and alike:
            for measure in MEASURES:
                known_by = (set().union(*model.of(measure)) for model in (base, one))
                if tasks := sorted(set.intersection(*known_by)):
                    yield relation(base, one, measure, tasks)


def relation(base: Configuration, one: Configuration, measure: str, tasks: Sequence[str]) -> Relation:
    """Compare two configurations on `tasks`. Both levels of the bootstrap are those of the frontier."""
    pair = sample(base, tasks, measure), sample(one, tasks, measure)
    ours, theirs = map(envelope.average, pair)
    ratio = float(np.exp(envelope.side_by_side(ours, theirs, np.ones((1, len(tasks))))[0]))
    names, _ = clusters_of(one, tasks, tasks)
    low, high = None, None
    if len(set(names)) > 1 or max(base.seeds, one.seeds) > 1:
        generator = np.random.default_rng(0)
        drawn = [
            envelope.average(each, envelope.pick_seeds(each, generator, envelope.DRAWS)) for each in pair
        ]
        times = envelope.pick_clusters(names, generator, envelope.DRAWS)
        logs = envelope.side_by_side(drawn[0], drawn[1], times)
        low, high = envelope.interval(logs[~np.isnan(logs)])
    return Relation(
        model=one.name,
        base=base.name,
        loss=one.loss,
        excess=one.loss - base.loss,
        measure=measure,
        ratio=ratio,
        low=low,
        high=high,
        tasks=len(tasks),
        seeds=one.seeds,
        base_seeds=base.seeds,
    )


def laid_out(found: Sequence[Relation]) -> str:
    """Return a table with a row for each configuration and a column for each measure."""
    measures = [measure for measure in MEASURES if any(one.measure == measure for one in found)]
    header = ["model", "seeds", "loss", "excess", "tasks", *(MEASURES[measure] for measure in measures)]
    rows = []
    for name in dict.fromkeys(one.model for one in found):
        own = {one.measure: one for one in found if one.model == name}
        any_of = next(iter(own.values()))
        about = name, str(any_of.seeds), f"{any_of.loss:.3f}", f"{any_of.excess:+.3f}", str(any_of.tasks)
        rows.append([*about, *(_words(own.get(measure)) for measure in measures)])
    return program.table([header, *rows])


def _words(one: Relation | None) -> str:
    if one is None:
        return "-"
    return f"{one.ratio:.2f}" + ("" if one.low is None else f" [{one.low:.2f}, {one.high:.2f}]")


if __name__ == "__main__":
    start(main)
