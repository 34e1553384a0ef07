"""Every check on a model with a planted circuit: it passes, and a set of nodes that isn't it does not."""

import copy
import math

import pytest
import torch
from micro import PLANTED, planted_model, question, quick_masks, quick_pruning, random_tokens
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_circuit, make_evaluator
from sparsity_lab.evidence.binarisation import binarisation
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, activations
from sparsity_lab.evidence.controls import (
    controls,
    random_answers,
    shuffled_labels,
    shuffled_weights,
)
from sparsity_lab.evidence.generalisation import rename, rewrite
from sparsity_lab.evidence.minimality import drop_effects, minimality
from sparsity_lab.evidence.monosemanticity import active_shares, monosemanticity
from sparsity_lab.evidence.necessity import matched_nodes, necessity
from sparsity_lab.evidence.record import Check
from sparsity_lab.evidence.robustness import ADVERSARIAL_SHARE, adversarial_nodes, robustness
from sparsity_lab.evidence.sufficiency import pattern_similarity, sufficiency, two_way_kl
from sparsity_lab.tasks.task import Pair

MODEL = planted_model()
MEANS = mean_activations(MODEL, [random_tokens(20, 8)])
LAYOUT = NodeLayout(MODEL.config)
DATA = TaskData(*[question(48, seed) for seed in (1, 2, 3)])
FINDER = quick_masks()
PRUNING = quick_pruning(targets=[0.15], edges="prune")
RIGHT = LAYOUT.mask(Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED)
WRONG = RIGHT.roll(2)  # as many nodes, of the same sites, that have nothing to do with the question


def subject_of(kept_n: Tensor) -> CircuitUnderTest:
    evaluator = make_evaluator(MODEL, MEANS, DATA, FINDER, PRUNING)
    circuit = make_circuit(evaluator, kept_n, "question", "planted", 0.15, {})
    return CircuitUnderTest(MODEL, MEANS, circuit, DATA.train, DATA.test, random_tokens(16, 8, seed=5))


@pytest.fixture(scope="module")
def right() -> CircuitUnderTest:
    return subject_of(RIGHT)


@pytest.fixture(scope="module")
def wrong() -> CircuitUnderTest:
    return subject_of(WRONG)


def values(check: Check) -> dict[str, float]:
    return {measured.name: measured.value for measured in check.values}


def test_the_planted_circuit_suffices_and_another_does_not(
    right: CircuitUnderTest, wrong: CircuitUnderTest
) -> None:
    assert sufficiency(right).verdict in ("for", "mixed")
    assert sufficiency(wrong).verdict == "against"
    told = values(sufficiency(right))
    assert told["selection loss"] == pytest.approx(right.circuit.test.selection_loss)
    assert told["raw loss"] == pytest.approx(right.circuit.test.raw_loss)


def test_the_model_needs_the_planted_circuit_and_not_another(
    right: CircuitUnderTest, wrong: CircuitUnderTest
) -> None:
    needed = values(necessity(right, seed=0))
    assert needed["without the circuit"] > 0.6 > 0.2 > needed["without random others, worst"]
    assert (necessity(right, seed=0).verdict == "for") == (needed["without the circuit"] > math.log(2))
    assert necessity(wrong, seed=0).verdict == "against"


def test_matched_nodes_are_others_of_the_same_sites(right: CircuitUnderTest) -> None:
    matched = matched_nodes(right)
    assert len(matched.unique()) == len(PLANTED)
    assert not right.kept_n[matched].any()
    for place in LAYOUT.slices.values():
        inside = ((matched >= place.start) & (matched < place.stop)).sum()
        assert inside == right.kept_n[place].sum()


def test_dropping_a_planted_node_costs_the_answer_and_a_spare_one_nothing(right: CircuitUnderTest) -> None:
    assert min(drop_effects(right)) > 0.3
    assert minimality(right, drop_effects(right)).verdict == "for"
    larger = subject_of(RIGHT | WRONG)
    effects = drop_effects(larger)
    spare = [
        effect
        for node, effect in zip(larger.circuit.nodes, effects, strict=True)
        if node not in right.circuit.nodes
    ]
    assert max(spare) < 0.05
    assert minimality(larger, effects).verdict == "against"


def test_a_model_agrees_with_itself() -> None:
    everything = subject_of(torch.ones_like(RIGHT))
    assert pattern_similarity(everything) == pytest.approx(1, abs=1e-5)
    assert two_way_kl(everything.unpruned_b, everything.circuit_b) == pytest.approx(0, abs=1e-6)
    assert two_way_kl(everything.unpruned_b, -everything.circuit_b) > 1


def test_recorded_activations_are_those_of_the_forward_pass(right: CircuitUnderTest) -> None:
    tokens_bt = random_tokens(5, 6)
    found = activations(MODEL, tokens_bt, rows=2)
    assert found.shape == (5, 6, LAYOUT.size)
    torch.testing.assert_close(found.flatten(0, 1).mean(0), mean_activations(MODEL, [tokens_bt]))


def test_adversarial_nodes_do_more_harm_than_random_ones(right: CircuitUnderTest) -> None:
    chosen = adversarial_nodes(right)
    assert not (chosen & right.kept_n).any()
    assert chosen.sum() <= max(1, round(ADVERSARIAL_SHARE * int((~right.kept_n).sum())))
    harmed = right.scores(right.kept_difference(right.kept_n | chosen)).selection_loss
    assert harmed > right.scores(right.circuit_b).selection_loss - 1e-3
    told = values(robustness(right, seed=0, draws=2))
    assert told["2% of the rest restored, chosen against it"] == pytest.approx(harmed)
    assert told["rest at its means"] == pytest.approx(right.circuit.test.selection_loss)


def test_a_circuit_that_only_works_under_exact_mean_ablation_is_named() -> None:
    """Its answer is so faint that only a huge scale makes one of it, and any change of the rest drowns it."""
    faint = copy.deepcopy(MODEL)
    faint.blocks[0].get_parameter("attention.out.weight")[1, 0] = 1e-4
    calibrated = PRUNING.model_copy(update={"selection": "calibrated"})
    evaluator = make_evaluator(faint, MEANS, DATA, FINDER, calibrated)
    circuit = make_circuit(evaluator, RIGHT, "question", "faint", 0.15, {})
    assert circuit.test.selection_loss < 0.1
    check = robustness(
        CircuitUnderTest(faint, MEANS, circuit, DATA.train, DATA.test, random_tokens(16, 8)), 0, 2
    )
    assert check.verdict == "against"
    assert "only works under exact mean ablation" in check.sentence


def test_two_values_are_enough_for_a_yes_or_no(right: CircuitUnderTest) -> None:
    assert binarisation(right, 40, seed=0).verdict == "for"
    assert binarisation(right, 40, seed=0) == binarisation(right, 40, seed=0)


def test_activity_is_counted_over_the_text(right: CircuitUnderTest) -> None:
    on_task, on_text = active_shares(right)
    assert all(0 < share <= 1 for share in on_task)
    assert all(0 <= share <= 1 for share in on_text)
    assert monosemanticity(right, on_text).values[0].value == sorted(on_text)[1]


def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    shuffled = shuffled_weights(MODEL, seed=0)
    for (name, before), (_, after) in zip(
        MODEL.sparse_weights().items(), shuffled.sparse_weights().items(), strict=True
    ):
        assert torch.equal(before[0].flatten().sort().values, after[0].flatten().sort().values), name
    assert not torch.equal(MODEL.embedding.weight, shuffled.embedding.weight)
    assert torch.equal(shuffled_weights(MODEL, 0).embedding.weight, shuffled.embedding.weight)


def test_shuffled_labels_swap_whole_pairs() -> None:
    swapped = shuffled_labels(DATA, seed=0).train
    assert torch.equal(swapped.label_b, DATA.train.label_b)
    first, second = swapped.tokens_bt.chunk(2)
    before_first, before_second = DATA.train.tokens_bt.chunk(2)
    kept = (first == before_first).all(1)
    assert 10 < kept.sum() < 38
    assert torch.equal(second[kept], before_second[kept])
    assert torch.equal(first[~kept], before_second[~kept])
    assert torch.equal(second[~kept], before_first[~kept])


def test_random_answers_are_two_tokens_for_all() -> None:
    changed = random_answers(DATA, 11, seed=0)
    assert len(changed.train.answers_b2.unique(dim=0)) == 1
    assert changed.train.answers_b2[0, 0] != changed.train.answers_b2[0, 1]
    assert torch.equal(changed.train.answers_b2[:1], changed.test.answers_b2[:1])


def test_controls_find_nothing_where_labels_are_shuffled() -> None:
    shuffled = shuffled_weights(MODEL, seed=0)
    means_n = mean_activations(shuffled, [random_tokens(20, 8)])
    check = controls(MODEL, MEANS, (shuffled, means_n), DATA, FINDER, PRUNING, edges=2, seed=0)
    told = values(check)
    assert "edges with shuffled labels" not in told
    assert told["edges of the circuit"] == 2
    assert told["controls without any circuit"] >= 1


def test_renaming_changes_whole_words_in_prompts_and_answers() -> None:
    pair = Pair("item = items(item", "item = items(x", ("item", ")"))
    renamed = rewrite(pair, lambda text: rename(text, {"item": "node"}))
    assert renamed == Pair("node = items(node", "node = items(x", ("node", ")"))
