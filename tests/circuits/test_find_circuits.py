"""From a finder's sets to circuits: S9, and what a search may and may not return."""

import math
from dataclasses import replace

import pytest
import torch
from micro import PLANTED, evaluator_of, planted_model, questions, quick_masks, quick_pruning

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData, score
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.tasks.batch import TaskBatch

PRUNING = quick_pruning(target=0.15, targets=[0.1, 0.3], selection="calibrated")
ONCE = quick_masks()


def found_by_masks(evaluator: CircuitEvaluator, pruning: PruningConfig = PRUNING) -> list[Circuit]:
    return find_circuits(evaluator, "question", "planted", ONCE, pruning).circuits


def unanswerable(batch: TaskBatch) -> TaskBatch:
    """The same rows, with answers that nothing in the prompt decides: each prompt comes with both."""
    twice = torch.arange(len(batch.label_b)).repeat(2)
    rows = TaskBatch(batch.tokens_bt[twice], batch.last_b[twice], batch.answers_b2[twice], batch.label_b)
    return replace(rows, label_b=torch.tensor([0, 1]).repeat_interleave(len(batch.label_b)))


@pytest.fixture(scope="module")
def planted() -> CircuitEvaluator:
    return evaluator_of(planted_model(), PRUNING)


@pytest.fixture(scope="module")
def circuits(planted: CircuitEvaluator) -> list[Circuit]:
    return found_by_masks(planted)


def test_s9_every_circuit_meets_its_target_on_held_out_pairs(
    planted: CircuitEvaluator, circuits: list[Circuit]
) -> None:
    assert [circuit.target for circuit in circuits] == [0.1, 0.15, 0.3]
    layout = NodeLayout(planted.model.config)
    for circuit in circuits:
        kept_n = layout.mask(circuit.nodes)
        for batch, told in ((planted.data.select, circuit.select), (planted.data.test, circuit.test)):
            found = score(planted.logit_difference(kept_n, batch), batch.label_b, circuit.calibration)
            assert found.model_dump() == pytest.approx(told.model_dump())
        assert circuit.select.selection_loss <= circuit.target
        assert len(circuit.edges) == count_edges(planted.model, kept_n)
        assert (circuit.task, circuit.model) == ("question", "planted")


def test_s9_where_no_circuit_meets_the_target_there_is_none() -> None:
    data = TaskData(
        *(unanswerable(batch) for batch in (questions().train, questions().select, questions().test))
    )
    evaluator = evaluator_of(planted_model(), PRUNING, data=data)
    everything = torch.ones_like(evaluator.means_n, dtype=torch.bool)
    assert evaluator.select_loss(everything) == pytest.approx(math.log(2), abs=1e-3)
    assert found_by_masks(evaluator) == []


def test_s9_only_the_targets_that_are_met_have_a_circuit(planted: CircuitEvaluator) -> None:
    floor = planted.select_loss(torch.ones_like(planted.means_n, dtype=torch.bool))
    config = PRUNING.model_copy(update={"targets": (floor / 1e3, 0.3)})
    found = [circuit.target for circuit in found_by_masks(planted, config)]
    assert found[-2:] == [0.15, 0.3]
    met = [circuit for circuit in found_by_masks(planted, config) if circuit.target < 0.1]
    assert all(circuit.select.selection_loss <= circuit.target for circuit in met)


@pytest.mark.parametrize("selection", ["raw", "calibrated"])
def test_a_relative_target_is_the_whole_models_loss_and_more(selection: str) -> None:
    """What the circuit without nodes meets already is left out; the same loss gives the same circuit."""
    config = quick_pruning(target=0.3, targets=[0.3], relative_targets=[0.05, 0.25, 2.0], selection=selection)
    evaluator = evaluator_of(planted_model(), config)
    whole = evaluator.select_loss(torch.ones_like(evaluator.means_n, dtype=torch.bool))
    found = found_by_masks(evaluator, config)
    assert [(c.target, c.target_kind, c.excess, c.asked) for c in found] == [
        (0.3, "absolute", None, 0.3),
        (whole + 0.05, "relative", 0.05, 0.05),
        (whole + 0.25, "relative", 0.25, 0.25),
    ]
    for circuit in found:
        assert circuit.select.selection_loss <= circuit.target
    same = config.model_copy(update={"relative_targets": (0.3 - whole,)})
    absolute, relative = found_by_masks(evaluator, same)
    if absolute.target == relative.target:
        assert absolute.nodes == relative.nodes


def test_the_planted_circuit_is_found_and_little_else(
    planted: CircuitEvaluator, circuits: list[Circuit]
) -> None:
    for circuit in circuits:
        found = {(node.layer, node.site, node.channel) for node in circuit.nodes}
        assert set(PLANTED) <= found
        assert len(found) <= 6
        assert (1, 1) in {(edge.source.channel + 1, edge.target.channel + 1) for edge in circuit.edges}


def test_the_same_config_gives_the_same_circuits(planted: CircuitEvaluator, circuits: list[Circuit]) -> None:
    assert found_by_masks(planted) == circuits


def test_a_looser_target_never_needs_more_nodes(circuits: list[Circuit]) -> None:
    sizes = [len(circuit.nodes) for circuit in circuits]
    assert sizes == sorted(sizes, reverse=True)
