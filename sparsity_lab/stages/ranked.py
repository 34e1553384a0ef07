"""Score a ranking of nodes or edges from elsewhere (`importers/eap_graph.py`) as circuits of several sizes.

The names of the file, or its edges between single channels, are sorted by the magnitude of their scores. Each
prefix of the sorted list is a circuit:
- of names: the nodes behind them, and all nodes that have no score;
- of edges: the edges, and the nodes at their ends. Other edges between these nodes pass their sources' means.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.discretisation import smallest_size
from sparsity_lab.circuits.edge_pruning import without_edges
from sparsity_lab.circuits.edges import count_edges, list_edges
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.importers.eap_graph import Ranking, Scored
from sparsity_lab.model.transformer import Transformer

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # sizes, as in the MIB benchmark

MARKED = "in_graph"  # the name of the circuit that the file marks
T = TypeVar("T")


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
    found = [build(MARKED, inside)] if inside is not None else []
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
    listed = {name: one for name, one in ranking.nodes.items() if ranking.groups[name]}
    order, unscored = _ordered(listed)
    ranked = [node for name in order for node in ranking.groups[name]]
    always_n = ~layout.mask(ranked) & ~layout.mask(ranking.dropped)
    names = [*order, *unscored]
    masks = [layout.mask(ranking.groups[name]) for name in names]
    marks = any(one.in_graph is not None for one in listed.values())
    unmarked_n = ~layout.mask(node for name in names for node in ranking.groups[name])

    def build(title: str, chosen: list[int]) -> Sized:
        # what the file marks says of every name whether it is kept; a prefix keeps all names without a score
        kept_n = (unmarked_n & ~layout.mask(ranking.dropped) if title == MARKED else always_n).clone()
        for index in chosen:
            kept_n |= masks[index]
        return Sized(title, kept_n, count_edges(model, kept_n), model)

    marked = [index for index, name in enumerate(names) if listed[name].in_graph]
    return build, len(order), marked if marks else None


def _by_edges(ranking: Ranking, model: Transformer, means_n: Tensor) -> tuple[Build, int, list[int] | None]:
    listed = ranking.edges
    order, unscored = _ordered(listed)
    edges = [*order, *unscored]

    def build(title: str, chosen: list[int]) -> Sized:
        kept = {edges[index] for index in chosen}
        nodes: set[Node] = {node for edge in kept for node in edge}
        kept_n = NodeLayout(model.config).mask(nodes)
        there = list_edges(model, kept_n)
        dropped = [edge for edge in there if (edge.source, edge.target) not in kept]
        return Sized(title, kept_n, len(there) - len(dropped), without_edges(model, means_n, dropped))

    marked = [index for index, edge in enumerate(edges) if listed[edge].in_graph]
    marks = any(one.in_graph is not None for one in listed.values())
    return build, len(order), marked if marks else None


def _ordered(listed: Mapping[T, Scored]) -> tuple[list[T], list[T]]:
    """Return what has a score, by descending magnitude, and the rest."""
    magnitudes = {name: abs(one.score) for name, one in listed.items() if one.score is not None}
    return sorted(magnitudes, key=lambda name: -magnitudes[name]), [
        name for name in listed if name not in magnitudes
    ]
