"""Score a ranking of nodes or edges from elsewhere (`importers/eap_graph.py`) as circuits of several sizes.

The names of the file, or its edges between single channels, are sorted by the magnitude of their scores. Each
prefix of the sorted list is a circuit:
- of names: the nodes behind them, and all nodes that have no score;
- of edges: the edges, and the nodes at their ends. Other edges between these nodes pass their sources' means.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.discretisation import smallest_size
from sparsity_lab.circuits.edge_pruning import without_edges
from sparsity_lab.circuits.edges import count_edges, list_edges
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.importers.eap_graph import Ranking
from sparsity_lab.model.transformer import Transformer

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # sizes, as in the MIB benchmark


@dataclass(frozen=True)
class Sized:
    """A circuit of one size: the kept nodes (n), the number of edges, and the model that has only these."""

    name: str
    kept_n: Tensor
    edges: int
    model: Transformer


def circuits_of(
    ranking: Ranking, model: Transformer, means_n: Tensor, meets: Callable[[Sized], bool] | None
) -> list[Sized]:
    """Return the file's own circuit, if it marks one, a circuit of each size, and the smallest that `meets`.

    `meets` is assumed to hold for every larger size once it holds.
    """
    build, units, inside = _by_edges(ranking, model, means_n) if ranking.edges else _by_nodes(ranking, model)
    found = [build("in_graph", inside)] if inside is not None else []
    sizes = sorted({round(share * units) for share in SHARES} - {0})
    found += [build(f"top {size} of {units}", list(range(size))) for size in sizes]
    if meets is not None and units:

        def holds(size: int) -> bool:
            return meets(build("", list(range(size))))

        if (size := smallest_size(units, holds)) is not None:
            found.append(build(f"smallest: top {size}", list(range(size))))
    return found


Build = Callable[[str, list[int]], Sized]


def _by_nodes(ranking: Ranking, model: Transformer) -> tuple[Build, int, list[int] | None]:
    layout = NodeLayout(model.config)
    scored = {name: one for name, one in ranking.nodes.items() if ranking.groups[name]}
    order = sorted(scored, key=lambda name: -abs(scored[name].score or 0.0))
    listed = [node for name in order for node in ranking.groups[name]]
    always_n = ~layout.mask(listed) & ~layout.mask(ranking.dropped)
    masks = [layout.mask(ranking.groups[name]) for name in order]

    def build(title: str, chosen: list[int]) -> Sized:
        kept_n = always_n.clone()
        for index in chosen:
            kept_n |= masks[index]
        return Sized(title, kept_n, count_edges(model, kept_n), model)

    units = sum(scored[name].score is not None for name in order)
    marked = [index for index, name in enumerate(order) if scored[name].in_graph]
    return build, units, _marked(marked, [one.in_graph for one in scored.values()])


def _by_edges(ranking: Ranking, model: Transformer, means_n: Tensor) -> tuple[Build, int, list[int] | None]:
    scored = ranking.edges
    order = sorted(scored, key=lambda edge: -abs(scored[edge].score or 0.0))

    def build(title: str, chosen: list[int]) -> Sized:
        kept = {order[index] for index in chosen}
        nodes: set[Node] = {node for edge in kept for node in edge}
        kept_n = NodeLayout(model.config).mask(nodes)
        there = list_edges(model, kept_n)
        dropped = [edge for edge in there if (edge.source, edge.target) not in kept]
        return Sized(title, kept_n, len(there) - len(dropped), without_edges(model, means_n, dropped))

    units = sum(scored[edge].score is not None for edge in order)
    marked = [index for index, edge in enumerate(order) if scored[edge].in_graph]
    return build, units, _marked(marked, [one.in_graph for one in scored.values()])


def _marked(marked: list[int], flags: list[bool | None]) -> list[int] | None:
    """Return the marked units; None if the file marks nothing at all."""
    return None if all(flag is None for flag in flags) else marked
