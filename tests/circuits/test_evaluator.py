"""From gates to circuits: S7 through the pruner, S9, and what a search may and may not return."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import PLANTED, planted_model, question, quick_pruning, random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.circuits.calibration import calibrate, score, two_way_loss
from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import Pruner, PruningConfig, TaskData, bisect, find_circuits
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference

CONFIG = quick_pruning(target=0.15, targets=[0.1, 0.3], retries=0)
PLANTED_NODES = [Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED]


def unanswerable(batch: TaskBatch) -> TaskBatch:
    """The same rows, with answers that nothing in the prompt decides: each prompt comes with both."""
    twice = torch.arange(len(batch.label_b)).repeat(2)
    rows = TaskBatch(batch.tokens_bt[twice], batch.last_b[twice], batch.answers_b2[twice], batch.label_b)
    return replace(rows, label_b=torch.tensor([0, 1]).repeat_interleave(len(batch.label_b)))


def pruner_of(model: Transformer, answerable: bool = True) -> Pruner:
    data = [question(48, seed) for seed in (1, 2, 3)]
    if not answerable:
        data = [unanswerable(batch) for batch in data]
    return Pruner(model, mean_activations(model, [random_tokens(20, 8)]), TaskData(*data))


@pytest.fixture(scope="module")
def planted() -> Pruner:
    return pruner_of(planted_model())


@pytest.fixture(scope="module")
def circuits(planted: Pruner) -> list[Circuit]:
    return find_circuits(planted, "question", "planted", CONFIG)


def everything(pruner: Pruner) -> Tensor:
    return torch.ones(len(pruner.means_n), dtype=torch.bool)


@pytest.mark.parametrize("model", [small_model(), planted_model()], ids=["small", "planted"])
def test_s7_the_all_nodes_circuit_has_the_unpruned_models_loss(model: Transformer) -> None:
    pruner = pruner_of(model)
    select, test = pruner.unpruned()
    for scores, batch in ((select, pruner.data.select), (test, pruner.data.test)):
        assert scores.loss == pytest.approx(
            two_way_loss(logit_difference(model, batch), batch.label_b).item()
        )
    assert pruner.select_loss(everything(pruner)) == pytest.approx(select.calibrated_loss)


@pytest.mark.parametrize("model", [small_model(), planted_model()], ids=["small", "planted"])
def test_s7_the_empty_circuit_knows_the_last_token_alone_and_costs_ln_2(model: Transformer) -> None:
    pruner = pruner_of(model)
    nothing = ~everything(pruner)
    assert pruner.select_loss(nothing) == pytest.approx(math.log(2), abs=1e-6)
    assert len(pruner.difference(nothing, pruner.data.select).unique()) == 1


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 70))
def test_bisection_finds_the_smallest_size_from_any_guess(most: int, answer: int, guess: int) -> None:
    tried: list[int] = []
    found = bisect(most, lambda size: tried.append(size) or size >= answer, guess)  # type: ignore[func-returns-value]
    assert found == (answer if answer <= most else None)
    assert len(tried) == len(set(tried))


def test_s9_every_circuit_meets_its_target_on_held_out_pairs(
    planted: Pruner, circuits: list[Circuit]
) -> None:
    assert [circuit.target for circuit in circuits] == [0.1, 0.15, 0.3]
    layout = NodeLayout(planted.model.config)
    for circuit in circuits:
        kept_n = layout.mask(circuit.nodes)
        for batch, told in ((planted.data.select, circuit.select), (planted.data.test, circuit.test)):
            found = score(planted.difference(kept_n, batch), batch.label_b, circuit.calibration)
            assert found.model_dump() == pytest.approx(told.model_dump())
        assert circuit.select.calibrated_loss <= circuit.target
        assert len(circuit.edges) == count_edges(planted.model, kept_n)
        assert (circuit.task, circuit.model) == ("question", "planted")


def test_s9_where_no_circuit_meets_the_target_there_is_none() -> None:
    pruner = pruner_of(planted_model(), answerable=False)
    assert pruner.select_loss(everything(pruner)) == pytest.approx(math.log(2), abs=1e-3)
    assert find_circuits(pruner, "question", "planted", CONFIG) == []


def test_s9_only_the_targets_that_are_met_have_a_circuit(planted: Pruner) -> None:
    floor = planted.select_loss(everything(planted))
    config = CONFIG.model_copy(update={"targets": (floor / 1e3, 0.3)})
    found = [circuit.target for circuit in find_circuits(planted, "question", "planted", config)]
    assert found[-2:] == [0.15, 0.3]
    met = [
        circuit for circuit in find_circuits(planted, "question", "planted", config) if circuit.target < 0.1
    ]
    assert all(circuit.select.calibrated_loss <= circuit.target for circuit in met)


def test_the_planted_circuit_is_found_and_little_else(planted: Pruner, circuits: list[Circuit]) -> None:
    for circuit in circuits:
        found = {(node.layer, node.site, node.channel) for node in circuit.nodes}
        assert set(PLANTED) <= found
        assert len(found) <= 6
        assert (1, 1) in {(edge.source.channel + 1, edge.target.channel + 1) for edge in circuit.edges}


def test_the_same_config_gives_the_same_circuits(planted: Pruner, circuits: list[Circuit]) -> None:
    assert find_circuits(planted, "question", "planted", CONFIG) == circuits


def test_a_looser_target_never_needs_more_nodes(circuits: list[Circuit]) -> None:
    sizes = [len(circuit.nodes) for circuit in circuits]
    assert sizes == sorted(sizes, reverse=True)


def test_the_smallest_prefix_meets_the_target_and_one_node_fewer_does_not(planted: Pruner) -> None:
    layout = NodeLayout(planted.model.config)
    planted_n = layout.mask(PLANTED_NODES)
    generator = torch.Generator().manual_seed(0)
    score_n = torch.rand(layout.size, generator=generator)
    score_n[planted_n] = torch.tensor([0.9, 0.8, 0.95])  # so that sets grow from useless to useful
    order_n = score_n.argsort(descending=True)
    kept_n = planted.smallest_prefixes(order_n, [0.15])[0.15]
    size = int(kept_n.sum())
    assert torch.equal(kept_n, torch.zeros_like(kept_n).index_fill(0, order_n[:size], True))
    assert planted.select_loss(kept_n) <= 0.15
    assert planted.select_loss(kept_n.index_fill(0, order_n[size - 1], False)) > 0.15
    assert planted.smallest_prefixes(order_n, [1e-9]) == {}


def test_polishing_keeps_a_subset_that_still_meets_the_target(planted: Pruner) -> None:
    generator = torch.Generator().manual_seed(1)
    kept_n = NodeLayout(planted.model.config).mask(PLANTED_NODES)
    kept_n = kept_n | (torch.rand(len(kept_n), generator=generator) < 0.3)
    assert planted.select_loss(kept_n) <= 0.15
    polished_n = planted.polish(kept_n, 0.15)
    assert not (polished_n & ~kept_n).any()
    assert planted.select_loss(polished_n) <= 0.15
    assert 1 <= polished_n.sum() <= 6 < kept_n.sum()


def test_the_calibration_is_fitted_on_the_selection_pairs_alone(planted: Pruner) -> None:
    kept_n = everything(planted)
    calibration, _, test = planted.scores(kept_n)
    select_b = planted.difference(kept_n, planted.data.select)
    assert calibration == calibrate(select_b, planted.data.select.label_b)
    other = replace(planted, data=replace(planted.data, test=question(5, seed=9)))
    assert other.scores(kept_n)[0] == calibration
    assert other.scores(kept_n)[2] != test


@pytest.mark.parametrize("targets", [[], [0.3, 0.1], [0.1, 0.1], [0.0, 0.1], [-1.0]])
def test_targets_must_be_positive_ascending_and_different(targets: list[float]) -> None:
    with pytest.raises(UserError, match=r"pruning.targets"):
        validate(PruningConfig, CONFIG.model_dump(mode="json") | {"targets": targets}, "pruning")


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True), st.floats(0.01, 1))
def test_all_targets_hold_the_main_one(targets: list[float], target: float) -> None:
    config = quick_pruning(target=target, targets=sorted(targets))
    assert list(config.all_targets) == sorted({*targets, target})
