"""Candidates for a circuit: sets of nodes that meet a target, of which the smallest is kept.

Shape suffixes: n all nodes.
"""

from typing import NamedTuple

from torch import Tensor

from sparsity_lab.circuits.discretisation import polish
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.failed_search import Size
from sparsity_lab.circuits.finders.finder import Notes


class Candidate(NamedTuple):
    """A set of nodes (n) that meets a target, its size, and how it was found."""

    kept_n: Tensor
    size: Size
    notes: Notes


def offer(
    best: dict[float, Candidate],
    evaluator: CircuitEvaluator,
    kept_n: Tensor,
    target: float,
    notes: Notes,
    polished: bool,
) -> None:
    """Take a set if it meets `target` and has the fewest edges so far, or as many edges and fewer nodes.

    With `polished`, nodes that the target does not need are dropped first.
    """
    if polished:
        kept_n = polish(evaluator, kept_n, target)
    loss = evaluator.select_loss(kept_n)
    size = Size(int(kept_n.sum()), count_edges(evaluator.model, kept_n), loss)
    if loss <= target and (target not in best or _smaller(size, best[target].size)):
        best[target] = Candidate(kept_n, size, notes)


def _smaller(one: Size, other: Size) -> bool:
    return (one.edges, one.nodes) < (other.edges, other.nodes)
