"""Losses of sets of nodes: S7, and the split that calibration is fitted on."""

import math
from dataclasses import replace

import pytest
import torch
from micro import evaluator_of, planted_model, question, quick_pruning, small_model
from torch import Tensor

from sparsity_lab.circuits.evaluator import CircuitEvaluator, calibrate, two_way_loss
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import logit_difference

CALIBRATED = quick_pruning(selection="calibrated")


def everything(evaluator: CircuitEvaluator) -> Tensor:
    return torch.ones(len(evaluator.means_n), dtype=torch.bool)


@pytest.mark.parametrize("model", [small_model(), planted_model()], ids=["small", "planted"])
def test_s7_the_all_nodes_circuit_has_the_unpruned_models_loss(model: Transformer) -> None:
    evaluator = evaluator_of(model, CALIBRATED)
    select, test = evaluator.unpruned()
    for scores, batch in ((select, evaluator.data.select), (test, evaluator.data.test)):
        assert scores.raw_loss == pytest.approx(
            two_way_loss(logit_difference(model, batch), batch.label_b).item()
        )
    raw = replace(evaluator, selection="raw")
    assert raw.select_loss(everything(evaluator)) == pytest.approx(select.raw_loss)
    assert evaluator.select_loss(everything(evaluator)) >= select.selection_loss


def test_a_calibrated_loss_is_checked_on_training_pairs_too() -> None:
    """The answers are right on the selection pairs and wrong on the training pairs."""
    evaluator = evaluator_of(planted_model(), CALIBRATED)
    train = evaluator.data.train
    wrong = replace(train, label_b=1 - train.label_b)
    other = replace(evaluator, data=replace(evaluator.data, train=wrong))
    _, select, _ = other.scores(everything(other))
    assert select.selection_loss < 0.1
    assert other.select_loss(everything(other)) > 1
    raw = replace(other, selection="raw")
    assert raw.select_loss(everything(raw)) == pytest.approx(select.raw_loss)


@pytest.mark.parametrize("model", [small_model(), planted_model()], ids=["small", "planted"])
def test_s7_the_empty_circuit_knows_the_last_token_alone_and_costs_ln_2(model: Transformer) -> None:
    evaluator = evaluator_of(model, CALIBRATED)
    nothing = ~everything(evaluator)
    assert evaluator.select_loss(nothing) == pytest.approx(math.log(2), abs=1e-6)
    assert len(evaluator.logit_difference(nothing, evaluator.data.select).unique()) == 1


def test_the_calibration_is_fitted_on_the_selection_pairs_alone() -> None:
    planted = evaluator_of(planted_model(), CALIBRATED)
    kept_n = everything(planted)
    calibration, _, test = planted.scores(kept_n)
    select_b = planted.logit_difference(kept_n, planted.data.select)
    assert calibration == calibrate(select_b, planted.data.select.label_b)
    other = replace(planted, data=replace(planted.data, test=question(5, seed=9)))
    assert other.scores(kept_n)[0] == calibration
    assert other.scores(kept_n)[2] != test
