"""Compare sparse models trained from scratch, sparsified, and bridged to a dense model.

    python analysis/plot_dense_to_sparse.py [runs] [--sweep NAME] [--target NATS] [--out DIR]

Writes dense_to_sparse.csv, .png and .svg (default: to SOURCE/dense_to_sparse): pretraining loss and agreement
with the dense model, KL(dense, model), against edges, as a geometric mean over shared tasks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from analysis import frontier, program
from analysis.models import Configuration, Target, configurations, models
from analysis.pictures import save
from analysis.program import say
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.results.drawing import Figure, mpl
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.style import GREY, KINDS, STYLE, plain

WAYS = {
    "sparse": "scratch",
    "sparsified": "sparsified",
    "bridged": "bridged",
}  # kind of model → name of its training
COLOURS = {way: KINDS[kind][0] for kind, way in WAYS.items()}


@dataclass(frozen=True)
class Way:
    """One sparse configuration, the way it was trained, and its metrics. Losses and KL are in nats per token.

    Values are means over seeds; `..._low` and `..._high` are the smallest and the largest seed's.
    """

    way: str
    name: str
    d_model: int
    nonzeros: int
    tokens: int | None
    seeds: int
    loss: float
    loss_low: float
    loss_high: float
    dense_loss: float
    dense_kl: float
    dense_kl_low: float
    dense_kl_high: float
    hybrid_excess: float | None
    tasks: int
    edges: float
    edges_low: float
    edges_high: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=Path("runs"), help="folder of runs")
    parser.add_argument("--sweep", default="dense_to_sparse", help="the sweep whose runs are compared")
    parser.add_argument("--target", type=float, default=0.15, help="task loss of the circuits, in nats")
    parser.add_argument("--out", type=Path, help="folder of the results; default: SOURCE/dense_to_sparse")
    options = parser.parse_args(arguments)
    try:
        records = [record for _, record in read_all(options.source) if record.sweep == options.sweep]
        found, tasks = ways(records, options.target)
    except UserError as error:
        return program.refuse(error)
    out = options.out or options.source / "dense_to_sparse"
    out.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([asdict(way) for way in found])
    frame.to_csv(out / "dense_to_sparse.csv", index=False, lineterminator="\n")
    say(f"tasks: {', '.join(tasks)}\n{frame.to_string(index=False)}")
    for path in save(draw(found, len(tasks), options.target), out, "dense_to_sparse"):
        say(f"wrote {path}")
    return 0


def ways(records: Sequence[RunRecord], target: float) -> tuple[list[Way], list[str]]:
    """Return the sparse models with a reference model, and the tasks for which all have a circuit.

    Raises:
        UserError: there is no such model, or the models share no task.
    """
    by_hash = {r.config_hash: r for r in records if r.kind in WAYS and metrics.REFERENCE_KL.name in r.metrics}
    compared = configurations(models(by_hash.values(), Target(target)))
    tasks = frontier.shared(compared)
    if not tasks:
        raise UserError(
            f"{len(compared)} runs with a reference model, and no task with a circuit at {target:g} "
            "nats in all of them; make some: python -m sparsity_lab.run +sweep=dense_to_sparse -m"
        )
    found = [_way(one, [by_hash[model.id] for model in one.models], tasks) for one in compared]
    return sorted(found, key=lambda way: (list(COLOURS).index(way.way), way.name)), tasks


def _way(one: Configuration, records: Sequence[RunRecord], tasks: Sequence[str]) -> Way:
    losses = [record.metrics[metrics.VALIDATION_LOSS.name] for record in records]
    divergences = [record.metrics[metrics.REFERENCE_KL.name] for record in records]
    excess = [
        value for record in records if (value := record.metrics.get(metrics.HYBRID_EXCESS.name)) is not None
    ]
    edges, fewest, most = frontier.spread(one, tasks, "edges")
    return Way(
        way=WAYS[one.first.kind],
        name=one.name,
        d_model=one.first.d_model,
        nonzeros=one.first.nonzeros,
        tokens=records[0].model.tokens,
        seeds=one.seeds,
        loss=one.loss,
        loss_low=min(losses),
        loss_high=max(losses),
        dense_loss=fmean(record.metrics[metrics.REFERENCE_LOSS.name] for record in records),
        dense_kl=fmean(divergences),
        dense_kl_low=min(divergences),
        dense_kl_high=max(divergences),
        hybrid_excess=fmean(excess) if excess else None,
        tasks=len(tasks),
        edges=edges,
        edges_low=fewest,
        edges_high=most,
    )


def draw(found: Sequence[Way], tasks: int, target: float) -> Figure:
    """Draw pretraining loss and KL from the dense model against edges, in two panels. Bars span the seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.8))
        left, right = figure.subplots(1, 2, sharex=True)
        for way in found:
            label = plain(f"{way.way}, d_model {way.d_model}")
            edges = _bar(way.edges, way.edges_low, way.edges_high)
            for axes, y, low, high in (
                (left, way.loss, way.loss_low, way.loss_high),
                (right, way.dense_kl, way.dense_kl_low, way.dense_kl_high),
            ):
                style: Any = {"fmt": "o", "color": COLOURS[way.way], "markersize": 9, "capsize": 3}
                axes.errorbar(way.edges, y, xerr=edges, yerr=_bar(y, low, high), label=label, **style)
        left.axhline(found[0].dense_loss, color=GREY, linestyle="--", linewidth=1, label="the dense model")
        left.set_ylabel("Pretraining loss (nats per token)")
        right.set_ylabel("KL from the dense model (nats per token)")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel(f"Edges per circuit ({tasks} tasks, {target:g} nats)")
            axes.set_xlim(0, 1.15 * max(way.edges_high for way in found))
        figure.legend(loc="outside upper center", ncols=4)
        return figure


def _bar(value: float, low: float, high: float) -> list[list[float]]:
    """The lengths of a bar to the smallest and the largest seed."""
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


if __name__ == "__main__":
    start(main)
