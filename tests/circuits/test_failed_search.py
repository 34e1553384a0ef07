"""A failed search is recognised by its sizes and losses and repeated, and the smallest result is kept."""

from typing import Any, Literal, cast

import pytest
import torch
from micro import PLANTED, evaluator_of, planted_model, quick_pruning

from sparsity_lab.circuits import search
from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.failed_search import Size, doubt, out_of_line
from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.core.hashing import derive_seed

TARGETS = (0.15, 0.3, 0.5)
GOOD = {0.15: Size(60, 80, 0.141), 0.3: Size(40, 45, 0.29), 0.5: Size(21, 20, 0.45)}


def test_a_curve_as_searches_that_succeeded_give_it_is_not_doubted() -> None:
    assert doubt(GOOD, TARGETS, 5632) is None
    assert doubt({0.15: GOOD[0.15]}, (0.15,), 5632) is None


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({0.15: Size(1275, 3930, 0.149)}, "1275 nodes at 0.15 nats, 40 at 0.3"),
        ({0.15: Size(60, 80, 0.018)}, "loss 0.018 at a target of 0.15 nats"),
        ({0.3: Size(40, 45, 0.1)}, "loss 0.100 at a target of 0.3 nats"),
        ({0.15: Size(3000, 9000, 0.149), 0.3: Size(2900, 9000, 0.29)}, "3000 of 5632 nodes at 0.15 nats"),
    ],
)
def test_the_signs_of_a_failed_search(wrong: dict[float, Size], because: str) -> None:
    assert doubt(GOOD | wrong, TARGETS, 5632) == because


def test_no_set_at_the_main_target_is_a_failed_search() -> None:
    assert doubt({0.3: GOOD[0.3]}, TARGETS, 5632) == "no set of nodes reaches 0.15 nats"
    assert doubt({}, TARGETS, 5632) == "no set of nodes reaches 0.15 nats"


def test_a_handful_of_nodes_is_not_doubted_however_low_its_loss() -> None:
    assert doubt({0.15: Size(3, 2, 0.001)}, (0.15,), 120) is None
    assert doubt({0.15: Size(54, 79, 0.142), 0.3: Size(6, 5, 0.29)}, TARGETS, 5632) is None


def test_a_circuit_out_of_line_with_the_models_others() -> None:
    nodes = {"a": 20, "b": 50, "c": 60, "d": 159, "e": 30}
    assert out_of_line(nodes) == []
    assert out_of_line(nodes | {"final_kwarg": 1275}) == ["final_kwarg"]
    assert out_of_line({"a": 20, "b": 50, "final_kwarg": 1275}) == []  # too few others to tell
    assert out_of_line(dict.fromkeys("abcd", 1) | {"e": 18}) == []


class Astray(FinderConfigBase):
    """The first `fails` attempts keep all nodes but a few; later ones keep the planted circuit."""

    kind: Literal["astray"] = "astray"
    fails: int
    attempt: int = 0

    def again(self, attempt: int, missed: bool) -> "Astray":
        return self.model_copy(update={"attempt": attempt})


def go_astray(
    evaluator: CircuitEvaluator, config: Astray, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    layout = NodeLayout(evaluator.model.config)
    planted_n = layout.mask([Node(layer=layer, site=site, channel=c) for layer, site, c in PLANTED])
    if config.attempt < config.fails:
        planted_n = torch.ones_like(planted_n)
    return {target: Found(planted_n, {"seed": seed}) for target in targets}


def found(
    monkeypatch: pytest.MonkeyPatch, fails: int, earlier: list[Circuit] | None = None, **changes: Any
) -> list[Circuit]:
    monkeypatch.setitem(cast(dict[Any, Any], search.FINDERS), Astray, go_astray)
    pruning: PruningConfig = quick_pruning(targets=[0.15, 0.3], polish=False, **changes)
    evaluator = evaluator_of(planted_model(), pruning)
    return find_circuits(
        evaluator, "question", "planted", Astray(fails=fails), pruning, earlier or ()
    ).circuits


def test_a_planted_failure_is_searched_again_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for circuit in found(monkeypatch, fails=1):
        assert len(circuit.nodes) == 3
        assert (circuit.provenance["retries"], circuit.provenance["seed"]) == (
            1,
            derive_seed(0, "attempt", 1),
        )
        assert circuit.provenance["attempt"] == 1
        assert "nodes at 0.15 nats" in str(circuit.provenance["retried_because"])


def test_a_search_that_succeeds_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for circuit in found(monkeypatch, fails=0):
        assert circuit.provenance["attempt"] == 0
        assert "retries" not in circuit.provenance


def test_the_number_of_further_searches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {len(c.nodes) for c in found(monkeypatch, fails=9)} != {3}
    assert {c.provenance["retries"] for c in found(monkeypatch, fails=9)} == {2}
    assert {len(c.nodes) for c in found(monkeypatch, fails=1, retries=0)} != {3}


@pytest.mark.parametrize("fails", [3, 9])
def test_a_further_search_goes_on_where_the_earlier_one_ended(
    monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    earlier = found(monkeypatch, fails=fails)
    later = found(monkeypatch, fails=fails, earlier=earlier)
    assert {c.provenance["retries"] for c in later} == {4}
    for before, after in zip(earlier, later, strict=True):
        assert len(after.nodes) == (3 if fails == 3 else len(before.nodes))
        assert "the model's circuits for other tasks" in str(after.provenance["retried_because"])


def test_a_tighter_targets_circuit_stands_in_for_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def tight_only(
        evaluator: CircuitEvaluator, config: Astray, targets: tuple[float, ...], seed: int
    ) -> dict[float, Found]:
        small = go_astray(evaluator, config, targets, seed)
        everything = torch.ones_like(small[0.3].kept_n)
        return {0.15: small[0.15], 0.3: Found(everything, {})}

    monkeypatch.setitem(cast(dict[Any, Any], search.FINDERS), Astray, tight_only)
    pruning = quick_pruning(targets=[0.15, 0.3], polish=False, retries=0)
    evaluator = evaluator_of(planted_model(), pruning)
    tight, loose = find_circuits(evaluator, "question", "planted", Astray(fails=0), pruning).circuits
    assert tight.nodes == loose.nodes
    assert loose.provenance["found_at"] == 0.15


@pytest.mark.parametrize("selection", ["raw", "calibrated"])
def test_a_search_that_finds_nothing_says_how_often_it_was_repeated(
    monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    def nothing(
        evaluator: CircuitEvaluator, config: Astray, targets: tuple[float, ...], seed: int
    ) -> dict[float, Found]:
        return {}

    monkeypatch.setitem(cast(dict[Any, Any], search.FINDERS), Astray, nothing)
    pruning = quick_pruning(targets=[0.15], selection=selection, retries=2)
    evaluator = evaluator_of(planted_model(), pruning)
    found = find_circuits(evaluator, "question", "planted", Astray(fails=0), pruning)
    repeated = 2 if selection == "raw" else 4  # a calibrated search begins with a raw one
    assert found == ([], repeated, "no set of nodes reaches 0.15 nats")


def test_retries_of_the_raw_search_count_under_calibrated_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    def bad_if_raw(
        evaluator: CircuitEvaluator, config: Astray, targets: tuple[float, ...], seed: int
    ) -> dict[float, Found]:
        aimed = config.model_copy(update={"fails": 1 if evaluator.selection == "raw" else 0})
        return go_astray(evaluator, aimed, targets, seed)

    monkeypatch.setitem(cast(dict[Any, Any], search.FINDERS), Astray, bad_if_raw)
    pruning = quick_pruning(targets=[0.15], selection="calibrated", polish=False)
    evaluator = evaluator_of(planted_model(), pruning)
    found = find_circuits(evaluator, "question", "planted", Astray(fails=1), pruning)
    assert found.retries == found.circuits[0].provenance["retries"] == 1
    assert "nodes at 0.15 nats" in found.retried_because


def test_calibrated_selection_never_ends_with_more_edges_than_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    def good_if_raw(
        evaluator: CircuitEvaluator, config: Astray, targets: tuple[float, ...], seed: int
    ) -> dict[float, Found]:
        aimed = config.model_copy(update={"fails": 0 if evaluator.selection == "raw" else 9})
        return go_astray(evaluator, aimed, targets, seed)

    monkeypatch.setitem(cast(dict[Any, Any], search.FINDERS), Astray, good_if_raw)
    for polish in (False, True):
        pruning = quick_pruning(targets=[0.15], selection="calibrated", polish=polish, retries=0)
        evaluator = evaluator_of(planted_model(), pruning)
        (circuit,) = find_circuits(evaluator, "question", "planted", Astray(fails=9), pruning).circuits
        assert len(circuit.edges) <= 2
        assert circuit.select.selection_loss <= 0.15
