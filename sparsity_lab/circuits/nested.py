"""Nested circuits: a looser target's circuit is part of every tighter target's circuit (`pruning.nested`).

Separate circuits for several targets are different sets, because polish drops other nodes at each target.
Nested circuits are one ranking of nodes: those of the loosest circuit first, then those that each tighter
target adds.

1. The tightest target keeps the smallest circuit of the search.
2. Each looser target, in ascending order, has two candidates: all nodes of the next tighter circuit, and
   those of them that the search's own circuit for this target keeps.
3. Both are polished, and the one with fewer edges is kept.

The next tighter circuit meets every looser target, so no target loses its circuit.

Shape suffixes: n all nodes.
"""

from collections.abc import Mapping
from itertools import pairwise

from sparsity_lab.circuits.candidates import Candidate, offer
from sparsity_lab.circuits.evaluator import CircuitEvaluator


def nest(
    separate: Mapping[float, Candidate], evaluator: CircuitEvaluator, polished: bool
) -> dict[float, Candidate]:
    """Return nested sets in place of the separately searched ones, for the same targets (nats)."""
    targets = sorted(separate)
    nested = {target: separate[target] for target in targets[:1]}
    for tighter, looser in pairwise(targets):
        within = nested[tighter]
        notes = {**within.notes, "found_at": tighter}
        offer(nested, evaluator, within.kept_n, looser, notes, polished)
        shared_n = within.kept_n & separate[looser].kept_n
        offer(nested, evaluator, shared_n, looser, separate[looser].notes, polished)
        nested.setdefault(looser, within)  # rounding may put a polished set just above its target
    return nested
