"""Exchange: dropped nodes come back, kept ones go, and the circuit gets smaller or stays."""

from typing import Any

import pytest
import torch
from micro import PLANTED, evaluator_of, planted_model, quick_masks, quick_pruning, small_model
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.circuits.discretisation import polish
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.exchange import drop_singly, exchange, with_most_helpful
from sparsity_lab.circuits.finders import FINDERS, masks
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.circuits.tying import both
from sparsity_lab.core.errors import UserError

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


def found(seed: int = 3, **changes: object) -> list[Circuit]:
    targets = changes.pop("targets", (TARGET,))
    pruning = quick_pruning(target=TARGET, targets=targets, retries=0, **changes)
    evaluator = evaluator_of(small_model(seed), pruning)
    return find_circuits(evaluator, "random", "random", quick_masks(), pruning).circuits


def test_a_search_with_exchanges_finds_a_smaller_circuit_and_says_so() -> None:
    (plain,), (exchanged,) = found(), found(exchanges=4)
    assert exchanged.counts[::-1] < plain.counts[::-1]
    assert exchanged.select.raw_loss <= TARGET
    assert (plain.provenance.get("exchanges"), exchanged.provenance["exchanges"]) == (None, 4)


def test_a_looser_target_never_needs_more_edges_after_exchanges() -> None:
    for seed in range(3, 6):
        circuits = found(seed, targets=(0.58, TARGET, 0.62, 0.64), exchanges=4)
        edges = [len(circuit.edges) for circuit in circuits]
        assert edges == sorted(edges, reverse=True)


def test_several_starts_use_other_seeds_and_keep_the_smallest_circuit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds, learned = [], masks.find

    def noted(evaluator: Any, config: Any, targets: Any, seed: int) -> Any:
        seeds.append((seed, config.steps))
        return learned(evaluator, config, targets, seed)

    monkeypatch.setitem(FINDERS, masks.Config, noted)  # type: ignore[misc]
    (one,), (several,) = found(), found(starts=6)
    assert len(seeds) == 1 + 6
    assert len(set(seeds)) == 6  # the first start is the only one of the other search
    assert {steps for _, steps in seeds} == {60}  # further starts learn for no more steps
    assert several.counts[::-1] < one.counts[::-1]
    assert several.provenance["starts"] == 6


def test_an_exchange_needs_polish() -> None:
    with pytest.raises(UserError, match="exchanges: an exchange polishes; with polish false, allowed: 0"):
        quick_pruning(polish=False, exchanges=1)
