"""From an order of nodes to a set: bisection, the smallest prefix, polish."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import PLANTED, evaluator_of, planted_model, quick_pruning

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.discretisation import polish, smallest_prefixes, smallest_size
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.nodes import NodeLayout

PLANTED_NODES = [Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED]


@pytest.fixture(scope="module")
def planted() -> CircuitEvaluator:
    return evaluator_of(planted_model(), quick_pruning(selection="calibrated"))


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 70))
def test_bisection_finds_the_smallest_size_from_any_guess(most: int, answer: int, guess: int) -> None:
    tried: list[int] = []
    found = smallest_size(most, lambda size: tried.append(size) or size >= answer, guess)  # type: ignore[func-returns-value]
    assert found == (answer if answer <= most else None)
    assert len(tried) == len(set(tried))


def test_the_smallest_prefix_meets_the_target_and_one_node_fewer_does_not(planted: CircuitEvaluator) -> None:
    layout = NodeLayout(planted.model.config)
    planted_n = layout.mask(PLANTED_NODES)
    generator = torch.Generator().manual_seed(0)
    score_n = torch.rand(layout.size, generator=generator)
    score_n[planted_n] = torch.tensor([0.9, 0.8, 0.95])  # so that sets grow from useless to useful
    order_n = score_n.argsort(descending=True)
    kept_n = smallest_prefixes(planted, order_n, [0.15])[0.15]
    size = int(kept_n.sum())
    assert torch.equal(kept_n, torch.zeros_like(kept_n).index_fill(0, order_n[:size], True))
    assert planted.select_loss(kept_n) <= 0.15
    assert planted.select_loss(kept_n.index_fill(0, order_n[size - 1], False)) > 0.15
    assert smallest_prefixes(planted, order_n, [1e-9]) == {}


def test_polishing_keeps_a_subset_that_still_meets_the_target(planted: CircuitEvaluator) -> None:
    generator = torch.Generator().manual_seed(1)
    kept_n = NodeLayout(planted.model.config).mask(PLANTED_NODES)
    kept_n = kept_n | (torch.rand(len(kept_n), generator=generator) < 0.3)
    assert planted.select_loss(kept_n) <= 0.15
    polished_n = polish(planted, kept_n, 0.15)
    assert not (polished_n & ~kept_n).any()
    assert planted.select_loss(polished_n) <= 0.15
    assert 1 <= polished_n.sum() <= 6 < kept_n.sum()
