"""Every check on a model with a planted circuit: it passes, and a set of nodes that isn't it does not."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from micro import PLANTED, planted_model, question, quick_masks, quick_pruning, random_tokens
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.evaluator import TaskData, two_way_loss
from sparsity_lab.circuits.finders.masks import Config as MasksConfig
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_circuit, make_evaluator
from sparsity_lab.evidence.binarisation import binarisation
from sparsity_lab.evidence.checks import SharedInputs, check_circuit
from sparsity_lab.evidence.circuit_under_test import CHANCE_LOSS, CircuitUnderTest, activations
from sparsity_lab.evidence.config import EvidenceConfig
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
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.evidence.robustness import ADVERSARIAL_SHARE, adversarial_nodes, robustness
from sparsity_lab.evidence.sufficiency import pattern_similarity, sufficiency, two_way_kl
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.task import Pair, Task

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


@dataclass(frozen=True)
class Told(CircuitUnderTest):
    """A subject whose loss with only some nodes live is told instead of measured."""

    loss: Callable[[Tensor, Tensor | None], float] = lambda kept_n, values_n: 0.0

    def kept_difference(
        self, kept_n: Tensor, values_n: Tensor | None = None, closed: bool | None = None
    ) -> Tensor:
        difference = -math.log(math.expm1(self.loss(kept_n, values_n)))
        logit_diff_b = torch.where(self.test.label_b == 0, difference, -difference).double()
        told = two_way_loss(logit_diff_b, self.test.label_b).item()
        assert told == pytest.approx(self.loss(kept_n, values_n))
        return logit_diff_b


def told_of(subject: CircuitUnderTest, loss: Callable[[Tensor, Tensor | None], float]) -> Told:
    parts = (subject.model, subject.means_n, subject.circuit, subject.train, subject.test, subject.text_bt)
    return Told(*parts, loss)


@pytest.mark.parametrize(
    ("target", "limit", "halfway"),
    [(0.15, 0.225, 0.4216), (0.075, 0.1125, 0.3841), (0.5, 0.5483, 0.5966), (0.8, 0.8, 0.8)],
)
def test_the_losses_by_which_checks_judge_lie_between_target_and_chance(
    right: CircuitUnderTest, target: float, limit: float, halfway: float
) -> None:
    circuit = right.circuit.model_copy(update={"target": target})
    subject = replace(right, circuit=circuit)
    assert (subject.limit, subject.halfway) == (
        pytest.approx(limit, abs=1e-4),
        pytest.approx(halfway, abs=1e-4),
    )
    assert target <= subject.limit <= subject.halfway <= max(target, CHANCE_LOSS)
    assert subject.limit_beside(0.01) == subject.limit
    assert subject.limit_beside(1.0) == pytest.approx(1.0 + limit - target, abs=1e-4)


@pytest.mark.parametrize(
    ("without", "random", "as_active", "verdict"),
    [
        (0.70, 0.10, 0.20, "for"),
        (0.70, 0.57, 0.10, "mixed"),  # better than chance, yet far from the target
        (0.70, 0.10, 0.57, "mixed"),
        (2.00, 1.50, 1.50, "mixed"),
        (0.60, 0.10, 0.10, "mixed"),
        (0.60, 0.10, 0.65, "against"),
        (0.20, 0.10, 0.10, "against"),
    ],
)
def test_necessity_asks_for_chance_without_the_circuit_and_the_target_without_others(
    right: CircuitUnderTest, without: float, random: float, as_active: float, verdict: Verdict
) -> None:
    matched_n = torch.ones_like(RIGHT).index_fill(0, matched_nodes(right), False)

    def loss(kept_n: Tensor, values_n: Tensor | None) -> float:
        if torch.equal(kept_n, ~RIGHT):
            return without
        return as_active if torch.equal(kept_n, matched_n) else random

    check = necessity(told_of(right, loss), seed=0)
    assert check.verdict == verdict
    assert "0.693 nats (chance)" in check.rule
    assert "0.225 nats (the target + 0.075)" in check.rule
    assert "16 random sets" in check.rule


def test_a_circuit_with_more_nodes_than_there_are_others_is_not_shown_to_be_needed() -> None:
    large = subject_of(torch.arange(LAYOUT.size) > LAYOUT.size // 4)
    told = told_of(large, lambda kept_n, values_n: 0.1 if kept_n.sum() > LAYOUT.size // 2 else 1.0)
    assert necessity(told, seed=0).verdict == "mixed"


@pytest.mark.parametrize(
    ("zero", "resampled", "restored", "verdict", "words"),
    [
        (0.2, 0.2, 0.2, "for", "however the rest is frozen"),
        (0.2, 0.57, 0.2, "mixed", "frozen at another text's values."),
        (0.5, 0.57, 0.2, "mixed", "frozen at zero or frozen at another text's values."),
        (0.5, 0.57, 0.3, "against", "not in any of the other three"),
    ],
)
def test_robustness_asks_for_the_target_in_each_treatment(
    right: CircuitUnderTest, zero: float, resampled: float, restored: float, verdict: Verdict, words: str
) -> None:
    def loss(kept_n: Tensor, values_n: Tensor | None) -> float:
        if values_n is None:
            return 0.1 if torch.equal(kept_n, RIGHT) else restored
        return zero if not values_n.any() else resampled

    check = robustness(told_of(right, loss), seed=0, draws=2)
    assert (check.verdict, words in check.sentence) == (verdict, True)
    assert "at most 0.225 nats" in check.rule
    assert "mean of 16 positions" in check.rule
    assert "mean of 2 subsets" in check.rule
    worse = told_of(right, lambda kept_n, values_n: 0.3)
    assert "even with the rest at its means" in robustness(worse, seed=0, draws=1).sentence


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
    assert needed["others as active"] == len(PLANTED)
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
    assert "only meets its target under exact mean ablation" in check.sentence


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


@pytest.mark.parametrize(("target", "give_up"), [(0.15, math.log(2) / 2), (0.5, 0.5483)])
def test_no_control_is_given_up_at_a_loss_that_meets_the_target(
    right: CircuitUnderTest, target: float, give_up: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = list[float | None]()

    def for_controls(finder: MasksConfig, limit: float | None) -> MasksConfig:
        used.append(limit)
        return finder

    monkeypatch.setattr(MasksConfig, "for_controls", for_controls)
    monkeypatch.setattr("sparsity_lab.evidence.controls.controlled", lambda *given: iter(()))
    subject = replace(right, circuit=right.circuit.model_copy(update={"target": target}))
    for selection in ("raw", "calibrated"):
        pruning = PRUNING.model_copy(update={"target": target, "selection": selection})
        controls(subject, (MODEL, MEANS), DATA, FINDER, pruning, seed=0)
    assert used == [pytest.approx(give_up, abs=1e-4), None]


@pytest.mark.parametrize(("retries", "told_tries"), [(None, "1 try,"), (2, "up to 3 tries,")])
def test_controls_find_nothing_where_labels_are_shuffled_in_as_many_tries_as_the_circuit_took(
    right: CircuitUnderTest, retries: int | None, told_tries: str
) -> None:
    shuffled = shuffled_weights(MODEL, seed=0)
    means_n = mean_activations(shuffled, [random_tokens(20, 8)])
    took = {} if retries is None else {"retries": retries}
    circuit = right.circuit.model_copy(update={"provenance": right.circuit.provenance | took})
    check = controls(replace(right, circuit=circuit), (shuffled, means_n), DATA, FINDER, PRUNING, seed=0)
    told = values(check)
    assert "edges with shuffled labels" not in told
    assert told["edges of the circuit"] == len(right.circuit.edges)
    assert told["controls without any circuit"] >= 1
    assert told["tries with shuffled labels"] == PRUNING.starts + (retries or 0)
    assert f"{told_tries} finds no circuit with " in check.sentence
    assert "shuffled labels" in check.sentence


def test_renaming_changes_whole_words_in_prompts_and_answers() -> None:
    pair = Pair("item = items(item", "item = items(x", ("item", ")"))
    renamed = rewrite(pair, lambda text: rename(text, {"item": "node"}))
    assert renamed == Pair("node = items(node", "node = items(x", ("node", ")"))


class Letters:
    """A tokenizer of single letters; no word is one token, so that no identifier can be exchanged."""

    vocab_size = MODEL.vocab_size
    end_of_text = 10

    def token(self, id: int) -> str:
        return "abcdefghijk"[id]

    def encode(self, text: str) -> list[int]:
        return ["abcdefghijk".index(letter) for letter in text if letter in "abcdefghijk"]


@torch.no_grad()
def sparse_model() -> Transformer:
    """The planted model with three quarters of each matrix at zero, and AbsTopK."""
    model = planted_model()
    model.config = model.config.model_copy(update={"activation_fraction": 0.5})
    for name, (weight, _) in model.sparse_weights().items():
        if "unembedding" not in name and "embedding" not in name:
            weight[weight.abs() < weight.abs().flatten().kthvalue(3 * weight.numel() // 4).values] = 0.0
    return model


@pytest.mark.parametrize("model", [MODEL, sparse_model()], ids=["dense", "sparse"])
def test_every_check_is_made_of_a_dense_and_of_a_sparse_model(model: Transformer) -> None:
    means_n, text_bt = mean_activations(model, [random_tokens(20, 8)]), random_tokens(16, 8, seed=5)
    shuffled = shuffled_weights(model, seed=0)
    zeros = [sum((weight == 0).sum() for weight, _ in m.sparse_weights().values()) for m in (model, shuffled)]
    assert zeros[0] == zeros[1]
    assert (zeros[0] > 500) == (model is not MODEL)
    circuit = make_circuit(
        make_evaluator(model, means_n, DATA, FINDER, PRUNING), RIGHT, "question", "model", 0.15, {}
    )
    pair = Pair("bd hf", "cd hf", ("d", "e"))
    evidence = check_circuit(
        circuit=circuit,
        circuit_file="circuit-0.15.json",
        model=model,
        means_n=means_n,
        task=Task("question", "b or c", lambda rng: pair),
        data=DATA,
        test_pairs=[pair] * 8,
        shared_inputs=SharedInputs(
            text_bt=text_bt,
            real_lines=(),
            tokenizer=Letters(),  # type: ignore[arg-type]
            shuffled=(shuffled, mean_activations(shuffled, [random_tokens(20, 8)])),
        ),
        finder=FINDER,
        pruning=PRUNING,
        config=EvidenceConfig(pairs=32, draws=2, binarisation_steps=20),
    )
    found = {check.name: check for check in evidence.checks}
    assert {name for name, check in found.items() if check.verdict == "not_measured"} <= {"generalisation"}
    assert found["sufficiency"].verdict == "for"
    assert found["minimality"].verdict == "for"
    assert found["controls"].verdict in ("for", "mixed")
    for check in evidence.checks:
        judged = check.verdict != "not_measured"
        parts = [part.partition(":")[0] for part in check.rule.split("; ")] if judged else []
        assert parts[:1] + parts[-2:] == (["for", "mixed", "against"] if judged else [])
        assert (f"    rule: {check.rule}" in repr(evidence).splitlines()) == judged
