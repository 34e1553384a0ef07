"""Mask learning, through what any good version does: on a model with a planted circuit, it is found."""

from dataclasses import replace

import pytest
import torch
from micro import PLANTED, planted_model, question, quick_masks, random_tokens

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.config import MaskLearningConfig
from sparsity_lab.circuits.evaluator import two_way_loss
from sparsity_lab.circuits.mask_learning import LearnedMasks, learn_masks
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import PairSampler, TaskBatch, logit_difference

CONFIG = quick_masks()


def learn(model: Transformer, seed: int = 0, config: MaskLearningConfig = CONFIG) -> LearnedMasks:
    means_n = mean_activations(model, [random_tokens(20, 8)])
    return learn_masks(model, means_n, question(64), config, seed, closed=False)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return planted_model()


@pytest.fixture(scope="module")
def masks(model: Transformer) -> LearnedMasks:
    return learn(model)


def test_the_planted_model_answers_the_question(model: Transformer) -> None:
    batch = question(50, seed=3)
    assert two_way_loss(logit_difference(model, batch), batch.label_b) < 0.05


def test_there_is_a_tau_for_every_node_and_a_number_for_every_step(
    model: Transformer, masks: LearnedMasks
) -> None:
    size = NodeLayout(model.config).size
    assert masks.tau_n.shape == (size,)
    assert masks.tau_n.abs().max() <= 1
    assert not masks.tau_n.requires_grad
    assert len(masks.losses) == len(masks.sizes) == CONFIG.steps
    assert all(0 <= open_gates <= size for open_gates in masks.sizes)
    assert masks.sizes[-1] == int((masks.tau_n > 0).sum())


def test_the_planted_nodes_come_first(model: Transformer, masks: LearnedMasks) -> None:
    layout = NodeLayout(model.config)
    planted_n = layout.mask(
        [Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED]
    )
    ahead = int((masks.tau_n > masks.tau_n[planted_n].min()).sum())
    assert (masks.tau_n[planted_n] > 0).all()
    assert ahead < layout.size // 10


def test_the_open_gates_alone_answer_the_question(model: Transformer, masks: LearnedMasks) -> None:
    layout, batch = NodeLayout(model.config), question(50, seed=4)
    means_n = mean_activations(model, [random_tokens(20, 8)])
    tap = ablate(layout, masks.tau_n > 0, means_n)
    assert masks.sizes[-1] < layout.size / 2
    assert two_way_loss(logit_difference(model, batch, tap), batch.label_b) < 0.3


def test_the_same_seed_gives_the_same_bits_and_the_model_is_left_alone(
    model: Transformer, masks: LearnedMasks
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again, other = learn(model), learn(model, seed=1)
    assert torch.equal(again.tau_n, masks.tau_n)
    assert again.losses == masks.losses
    assert not torch.equal(other.tau_n, masks.tau_n)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_dropping_shut_nodes_changes_only_the_cost(model: Transformer, masks: LearnedMasks) -> None:
    """Up to rounding: a node is dropped when it has shut firmly, so the same nodes are open at the end."""
    kept = learn(model, config=quick_masks(drop_below=-1.0))
    assert abs(kept.sizes[-1] - masks.sizes[-1]) <= 0.1 * len(masks.tau_n)
    assert kept.losses[0] == masks.losses[0]


def test_a_hopeless_training_is_given_up_early_and_a_poor_one_later(
    model: Transformer, masks: LearnedMasks
) -> None:
    means_n, batch = mean_activations(model, [random_tokens(20, 8)]), question(64)
    wrong = replace(batch, label_b=1 - batch.label_b)  # the model is sure of the other answer

    def steps(rows: TaskBatch, give_up: float) -> int:
        return len(learn_masks(model, means_n, rows, quick_masks(give_up=give_up), 0, False).losses)

    assert steps(wrong, 0.01) == CONFIG.steps // 8
    assert steps(batch, 10.0) == CONFIG.steps
    smoothed = masks.losses[0]
    for loss in masks.losses[1 : CONFIG.steps // 4]:
        smoothed = 0.8 * smoothed + 0.2 * loss
    assert steps(batch, 0.9 * smoothed) <= CONFIG.steps // 4
    assert steps(batch, 1.1 * smoothed) in (CONFIG.steps // 8, CONFIG.steps)


def test_drawn_pairs_are_whole_and_each_comes_once_in_a_round() -> None:
    batch = question(40)
    sampler = PairSampler(batch, 10, torch.Generator().manual_seed(0))
    draws = [sampler.draw() for _ in range(4)]
    for rows in draws:
        assert rows.tokens_bt.shape == (20, 4)
        assert torch.equal(rows.tokens_bt[:10, 1:], rows.tokens_bt[10:, 1:])
        assert rows.tokens_bt[:, 0].tolist() == [1] * 10 + [2] * 10
        assert rows.label_b.tolist() == [0] * 10 + [1] * 10
    seen = torch.cat([rows.tokens_bt for rows in draws])
    assert sorted(seen.tolist()) == sorted(batch.tokens_bt.tolist())
    assert not torch.equal(sampler.draw().tokens_bt, draws[0].tokens_bt)


def test_rows_of_any_length_are_answered_in_their_own_order(model: Transformer) -> None:
    batch = question(9)
    mixed = replace(batch, last_b=torch.arange(18) % 4)
    whole_bv = model(batch.tokens_bt)[torch.arange(18), mixed.last_b]
    expected = whole_bv[:, 3] - whole_bv[:, 4]
    for rows in (1, 5, 64):
        torch.testing.assert_close(logit_difference(model, mixed, rows=rows), expected)


def test_answer_difference_is_at_each_prompts_own_end(model: Transformer) -> None:
    batch = question(3)
    longer = torch.cat([batch.tokens_bt, torch.full((6, 3), 10)], 1)  # padded on the right
    padded = replace(batch, tokens_bt=longer)
    torch.testing.assert_close(logit_difference(model, padded), logit_difference(model, batch))
    logits_bv = model(batch.tokens_bt)[:, -1]
    torch.testing.assert_close(logit_difference(model, batch), logits_bv[:, 3] - logits_bv[:, 4])
