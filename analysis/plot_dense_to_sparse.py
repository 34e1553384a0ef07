"""Compare sparse models trained from scratch, sparsified, and bridged to a dense model.

    python analysis/plot_dense_to_sparse.py [runs] [--sweep NAME] [--target NATS] [--out DIR]

Writes dense_to_sparse.csv, .png and .svg (default: to SOURCE/dense_to_sparse): pretraining loss and agreement
with the dense model, KL(dense, model), against edges, as a geometric mean over shared tasks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from analysis import frontier, program
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
    """One sparse model, the way it was trained, and its metrics. Losses and KL are in nats per token."""

    way: str
    name: str
    d_model: int
    nonzeros: int
    tokens: int | None
    loss: float
    dense_loss: float
    dense_kl: float
    hybrid_excess: float | None
    tasks: int
    edges: float


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
    compared = frontier.models(by_hash.values(), target)
    tasks = frontier.shared(compared)
    if not tasks:
        raise UserError(
            f"{len(compared)} runs with a reference model, and no task with a circuit at {target:g} "
            "nats in all of them; make some: python -m sparsity_lab.run +sweep=dense_to_sparse -m"
        )
    found = []
    for model in compared:
        record = by_hash[model.id]
        measured = record.metrics
        found.append(
            Way(
                way=WAYS[model.kind],
                name=model.name,
                d_model=model.d_model,
                nonzeros=model.nonzeros,
                tokens=record.model.tokens,
                loss=model.loss,
                dense_loss=measured[metrics.REFERENCE_LOSS.name],
                dense_kl=measured[metrics.REFERENCE_KL.name],
                hybrid_excess=measured.get(metrics.HYBRID_EXCESS.name),
                tasks=len(tasks),
                edges=frontier.size(model, tasks),
            )
        )
    return sorted(found, key=lambda way: (list(COLOURS).index(way.way), way.name)), tasks


def draw(found: Sequence[Way], tasks: int, target: float) -> Figure:
    """Draw pretraining loss and KL from the dense model against edges, in two panels."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.8))
        left, right = figure.subplots(1, 2, sharex=True)
        for way in found:
            label = plain(f"{way.way}, d_model {way.d_model}")
            left.plot(way.edges, way.loss, "o", color=COLOURS[way.way], markersize=9, label=label)
            right.plot(way.edges, way.dense_kl, "o", color=COLOURS[way.way], markersize=9)
        left.axhline(found[0].dense_loss, color=GREY, linestyle="--", linewidth=1, label="the dense model")
        left.set_ylabel("Pretraining loss (nats per token)")
        right.set_ylabel("KL from the dense model (nats per token)")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel(f"Edges per circuit ({tasks} tasks, {target:g} nats)")
            axes.set_xlim(0, 1.15 * max(way.edges for way in found))
        figure.legend(loc="outside upper center", ncols=4)
        return figure


if __name__ == "__main__":
    start(main)
