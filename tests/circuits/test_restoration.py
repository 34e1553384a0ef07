"""Restored subsets: how many, when, and which; and what a hardened search returns."""

import torch
from micro import PLANTED, evaluator_of, planted_model, quick_masks, quick_pruning

from sparsity_lab.circuits.restoration import Restoration, restored_nodes
from sparsity_lab.circuits.search import find_circuits


def test_each_node_is_restored_with_the_share() -> None:
    drawn = restored_nodes(10_000, 0.3, torch.Generator().manual_seed(0))
    assert 2_800 < drawn.sum() < 3_200


def test_every_other_step_restores_and_none_without_a_share() -> None:
    restoration = Restoration(0.5, False, 100, seed=0)
    drawn = [restoration.draw(step) for step in range(6)]
    assert [nodes is None for nodes in drawn] == [True, False] * 3
    assert all(Restoration(0.0, False, 100, 0).draw(step) is None for step in range(4))


def test_adversarial_restoring_takes_only_what_did_harm() -> None:
    restoration = Restoration(1.0, True, 100, seed=0)
    assert restoration.draw(0) is None
    restoration.note_gradient(torch.linspace(-1, 1, 100))
    drawn = restoration.draw(1)
    assert drawn is not None
    assert drawn.any()
    assert not drawn[:50].any()
    restoration.note_gradient(torch.ones(100))  # a step with something restored says nothing of harm
    assert restoration.draw(2) is None
    again = restoration.draw(3)
    assert again is not None
    assert not again[:50].any()


def test_a_hardened_search_stands_its_own_subsets_and_finds_what_is_planted() -> None:
    finder, pruning = quick_masks(restore=0.5), quick_pruning(targets=[0.15])
    evaluator = evaluator_of(planted_model(), pruning, finder)
    assert len(evaluator.restored) == 3
    (circuit,) = find_circuits(evaluator, "question", "planted", finder, pruning).circuits
    assert set(PLANTED) <= {(node.layer, node.site, node.channel) for node in circuit.nodes}
    assert circuit.provenance["restore"] == 0.5
    assert circuit.select.raw_loss <= 0.15


def test_raw_selection_meets_the_target_without_calibration() -> None:
    for selection in ("raw", "calibrated"):
        finder, pruning = quick_masks(), quick_pruning(targets=[0.15], selection=selection)
        evaluator = evaluator_of(planted_model(), pruning)
        (circuit,) = find_circuits(evaluator, "question", "planted", finder, pruning).circuits
        assert circuit.select.selection_loss <= 0.15
        if selection == "raw":
            assert circuit.select.raw_loss <= 0.15
