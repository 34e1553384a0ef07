"""Nested circuits: each is part of the next tighter target's, and still meets its own target."""

from itertools import pairwise

import pytest
from micro import evaluator_of, quick_masks, quick_pruning, small_model

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError

TARGETS = (0.55, 0.6, 0.65)


def search(nested: bool) -> list[Circuit]:
    """The circuits of a random model, whose answers at these targets need many nodes."""
    pruning = quick_pruning(target=0.6, targets=TARGETS, retries=0, nested=nested)
    evaluator = evaluator_of(small_model(3), pruning)
    return find_circuits(evaluator, "random", "random", quick_masks(), pruning).circuits


def are_nested(circuits: list[Circuit]) -> bool:
    """Whether each circuit's nodes are nodes of the next tighter one."""
    return all(set(looser.nodes) <= set(tighter.nodes) for tighter, looser in pairwise(circuits))


def test_the_nodes_of_looser_targets_are_nodes_of_tighter_ones() -> None:
    separate, nested = search(nested=False), search(nested=True)
    assert not are_nested(separate)
    assert are_nested(nested)
    assert [c.target for c in nested] == [c.target for c in separate] == list(TARGETS)
    assert nested[0].nodes == separate[0].nodes
    for circuit in nested:
        assert circuit.select.selection_loss <= circuit.target
        assert circuit.provenance["nested"] is True
    assert len(nested[-1].nodes) < len(nested[0].nodes)
    assert "nested" not in separate[0].provenance


@pytest.mark.parametrize("part", ["edges", "tokens"])
def test_parts_that_need_not_nest_are_not_pruned(part: str) -> None:
    with pytest.raises(UserError, match=rf"{part}: 'prune': with nested.*allowed: all"):
        validate(PruningConfig, {"nested": True, part: "prune"}, "pruning")
