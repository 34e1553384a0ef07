"""Exchange: dropped nodes come back, kept ones go, and the circuit gets smaller or stays."""

import pytest
import torch
from micro import PLANTED, evaluator_of, planted_model, quick_masks, quick_pruning, small_model
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.discretisation import polish
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.exchange import drop_singly, exchange, with_most_helpful
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.circuits.tying import both

TARGET = 0.6
PLANTED_NODES = [Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED]


def random_evaluator(seed: int, **changes: object) -> CircuitEvaluator:
    return evaluator_of(small_model(seed), quick_pruning(target=TARGET, targets=(TARGET,), **changes))


def everything(evaluator: CircuitEvaluator) -> Tensor:
    return torch.ones_like(evaluator.means_n, dtype=torch.bool)


def size(evaluator: CircuitEvaluator, kept_n: Tensor) -> tuple[int, int]:
    return count_edges(evaluator.model, kept_n), int(kept_n.sum())


@pytest.mark.parametrize("changes", [{}, {"tied_query_key": True}, {"selection": "calibrated"}], ids=str)
def test_an_exchange_meets_the_target_with_no_more_edges_and_often_with_fewer(
    changes: dict[str, object],
) -> None:
    smaller = 0
    for seed in range(8):
        evaluator = random_evaluator(seed, **changes)
        if evaluator.select_loss(everything(evaluator)) > TARGET:
            continue
        before_n = polish(evaluator, everything(evaluator), TARGET)
        after_n = exchange(evaluator, before_n, TARGET, rounds=4)
        assert evaluator.select_loss(after_n) <= TARGET
        assert size(evaluator, after_n) <= size(evaluator, before_n)
        assert torch.equal(both(after_n, evaluator.partner_n), after_n)
        smaller += bool((after_n & ~before_n).any()) and size(evaluator, after_n) < size(evaluator, before_n)
    assert smaller  # a node that polish had dropped is part of a smaller circuit


def test_no_node_can_go_after_single_drops() -> None:
    evaluator = evaluator_of(planted_model(), quick_pruning())
    layout = NodeLayout(evaluator.model.config)
    generator = torch.Generator().manual_seed(1)
    kept_n = layout.mask(PLANTED_NODES) | (torch.rand(layout.size, generator=generator) < 0.1)
    target = evaluator.select_loss(layout.mask(PLANTED_NODES)) + 0.01
    kept_n = drop_singly(evaluator, kept_n, target)
    assert evaluator.select_loss(kept_n) <= target
    for node in kept_n.nonzero().flatten():
        assert evaluator.select_loss(kept_n.index_fill(0, node, False)) > target
    impossible_to_miss = 10.0
    assert drop_singly(evaluator, kept_n, impossible_to_miss).sum() == 1  # the last node stays


@pytest.mark.parametrize("missing", range(len(PLANTED)))
def test_the_node_that_is_missing_most_comes_back_first(missing: int) -> None:
    evaluator = evaluator_of(planted_model(), quick_pruning())
    planted_n = NodeLayout(evaluator.model.config).mask(PLANTED_NODES)
    (index,) = NodeLayout(evaluator.model.config).mask([PLANTED_NODES[missing]]).nonzero().flatten()
    back_n = with_most_helpful(evaluator, planted_n.index_fill(0, index, False), 1)
    assert torch.equal(back_n, planted_n)


def test_a_search_with_exchanges_finds_circuits_no_larger_and_says_so() -> None:
    def search(**changes: object) -> tuple[int, int]:
        pruning = quick_pruning(target=TARGET, targets=(TARGET,), retries=0, **changes)
        evaluator = evaluator_of(small_model(3), pruning)
        (circuit,) = find_circuits(evaluator, "random", "random", quick_masks(), pruning).circuits
        assert circuit.select.raw_loss <= TARGET
        return len(circuit.edges), len(circuit.nodes)

    assert search(exchanges=4) < search()


def test_several_starts_keep_the_smallest_circuit() -> None:
    def search(**changes: object) -> tuple[int, int]:
        pruning = quick_pruning(target=TARGET, targets=(TARGET,), retries=0, **changes)
        evaluator = evaluator_of(small_model(3), pruning)
        (circuit,) = find_circuits(evaluator, "random", "random", quick_masks(), pruning).circuits
        return len(circuit.edges), len(circuit.nodes)

    alone = [search(seed=seed) for seed in (0, 1, 2)]
    assert search(starts=3) <= search(starts=2) <= search()
    assert min(alone) <= search()
