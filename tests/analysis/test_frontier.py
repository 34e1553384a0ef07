"""The frontier's numbers, on records small enough to work by hand."""

import math

import numpy as np
import pytest
from made_up import record, without_circuit

from analysis.frontier import (
    bootstrap,
    by_kind,
    comparable,
    matched_pair,
    models,
    ratio,
    shared,
    size,
    target_curve,
    targets,
)
from sparsity_lab.core.errors import UserError

DENSE_LOW = record("dense", 64, 1000, 1.6, {"a": 400, "b": 100, "c": 70})
DENSE_HIGH = record("dense", 32, 500, 2.0, {"a": 100, "b": 100, "c": 70})
SPARSE = record("sparse", 64, 100, 1.8, {"a": 10, "b": 4})
ALL = [SPARSE, DENSE_LOW, DENSE_HIGH]


def _split(*records: object, target: float = 0.15) -> tuple:
    found = models(records or ALL, target)  # type: ignore[arg-type]
    return [m for m in found if m.kind == "sparse"], [m for m in found if m.kind == "dense"]


def test_sizes_by_kind_of_task() -> None:
    made = record(
        "sparse", 8, 10, 1.9, {"a": 4, "b": 9, "c": 7}, others=(without_circuit("d", "not_learned"),)
    )
    kinds = {"a": "copy", "b": "copy", "c": "count", "d": "count"}
    tasks = tuple(task.model_copy(update={"kind": kinds[task.task]}) for task in made.tasks)
    (model,) = models([made.model_copy(update={"tasks": tasks})], 0.15)
    copy, count = by_kind([model])
    assert (copy.kind, copy.tasks, copy.learned, copy.circuits) == ("copy", 2, 2, 2)
    assert copy.geomean_edges == pytest.approx(6)
    assert (count.kind, count.tasks, count.learned, count.circuits) == ("count", 2, 1, 1)


def test_ratio_at_matched_loss_by_hand() -> None:
    """Half-way in loss a dense model needs sqrt(400·100) = 200 edges for a, 100 for b: 20 and 25 times."""
    (sparse,), dense = _split()
    found = ratio(sparse, dense)
    assert found.tasks == ("a", "b")
    assert found.dense == ("dense-64-1000", "dense-32-500")
    assert found.ratio == pytest.approx(math.sqrt(20 * 25))
    assert (found.low, found.high) == pytest.approx((20, 25))  # each in a quarter of the draws of two tasks
    assert found.note == ""


def test_interpolation_is_linear_in_loss_and_log_edges() -> None:
    (sparse,), dense = _split(record("sparse", 64, 100, 1.7, {"a": 10}), DENSE_LOW, DENSE_HIGH)
    found = ratio(sparse, dense)  # a quarter of the way: 400^(3/4) · 100^(1/4)
    assert found.ratio == pytest.approx(400**0.75 * 100**0.25 / 10)
    assert (found.low, found.high) == (None, None)
    assert found.note == "a single task has no interval"


def test_only_the_two_dense_models_around_count() -> None:
    far = record("dense", 16, 200, 2.5, {"a": 1, "b": 1})
    (sparse,), dense = _split(*ALL, far)
    assert ratio(sparse, dense) == ratio(*_first(_split()))


def _first(split: tuple) -> tuple:
    return split[0][0], split[1]


def test_at_the_very_loss_of_a_dense_model_it_alone_is_compared() -> None:
    (sparse,), dense = _split(record("sparse", 64, 100, 2.0, {"a": 10}), DENSE_LOW, DENSE_HIGH)
    found = ratio(sparse, dense)
    assert found.dense == ("dense-32-500",)
    assert found.ratio == pytest.approx(100 / 10)


@pytest.mark.parametrize("loss", [1.59, 2.01])
def test_nothing_is_extrapolated(loss: float) -> None:
    (sparse,), dense = _split(record("sparse", 64, 100, loss, {"a": 10}), DENSE_LOW, DENSE_HIGH)
    found = ratio(sparse, dense)
    assert (found.ratio, found.low, found.high, found.tasks) == (None, None, None, ())
    assert found.note == "outside the dense models' range (1.600 to 2.000 nats)"


def test_what_cannot_be_compared_says_why() -> None:
    (sparse,), dense = _split(record("sparse", 64, 100, 1.8, {"z": 10}), DENSE_LOW, DENSE_HIGH)
    assert ratio(sparse, dense).note == "no task with a circuit in all three"
    assert ratio(sparse, []).note == "no dense model"


def test_a_ratio_can_be_restricted_to_the_tasks_of_all_models() -> None:
    (sparse,), dense = _split()
    assert ratio(sparse, dense, among=["b", "c"]).tasks == ("b",)


def test_a_circuit_without_edges_counts_as_one_edge() -> None:
    (sparse,), dense = _split(record("sparse", 64, 100, 2.0, {"a": 0}), DENSE_LOW, DENSE_HIGH)
    assert ratio(sparse, dense).ratio == pytest.approx(100)
    assert size(sparse, ["a"]) == 1


def test_tasks_without_a_circuit_stay_out() -> None:
    others = tuple(
        without_circuit(task, status)
        for task, status in (
            ("n", "not_learned"),
            ("k", "not_askable"),
            ("e", "empty_solves"),
            ("m", "no_circuit"),
        )
    )
    (model,) = models([record("sparse", 64, 100, 1.8, {"a": 10}, others=others)], 0.15)
    assert model.learned == {"a", "e", "m"}
    assert model.solved_by_nothing == {"e"}
    assert model.edges == {"a": 10}


def test_shared_tasks_are_those_of_every_model() -> None:
    assert shared(models(ALL, 0.15)) == ["a", "b"]
    assert shared([]) == []


def test_size_is_a_geometric_mean() -> None:
    (sparse,), _ = _split()
    assert size(sparse, ["a", "b"]) == pytest.approx(math.sqrt(40))


def test_the_same_config_counts_once() -> None:
    newer = SPARSE.model_copy(update={"metrics": {**SPARSE.metrics, "validation/loss": 1.75}})
    (model,) = models([SPARSE, newer], 0.15)
    assert model.loss == 1.75


def test_a_record_without_what_the_frontier_needs_is_named() -> None:
    with pytest.raises(UserError, match=r"record of sparse-64-100: lacks 'validation/loss'"):
        models([SPARSE.model_copy(update={"metrics": {"model/weights": 1.0, "model/nonzeros": 1.0}})], 0.15)


def test_the_bootstrap_is_the_same_every_time_and_covers_what_it_should() -> None:
    logs = np.log(np.array([10.0, 20.0, 40.0, 15.0, 30.0, 25.0, 12.0, 33.0]))
    assert bootstrap(logs, seed=3) == bootstrap(logs, seed=3)
    assert bootstrap(logs, seed=3) != bootstrap(logs, seed=4)
    low, high = bootstrap(logs)
    half = 1.96 * logs.std() / math.sqrt(len(logs))  # normal approximation, near enough for eight tasks
    assert math.log(low) == pytest.approx(logs.mean() - half, abs=0.05)
    assert math.log(high) == pytest.approx(logs.mean() + half, abs=0.05)
    assert bootstrap(np.log(np.full(5, 7.0))) == pytest.approx((7.0, 7.0))


def test_the_matched_pair_is_the_closest_in_loss_that_shares_a_task() -> None:
    lonely = record("sparse", 32, 50, 2.0, {"z": 3})  # at a dense model's very loss, but on another task
    near = record("sparse", 128, 200, 1.65, {"a": 5})
    pair = matched_pair(models([*ALL, lonely, near], 0.15))
    assert pair is not None
    assert [model.name for model in pair] == ["dense-64-1000", "sparse-128-200"]
    assert matched_pair(models([SPARSE], 0.15)) is None


def test_the_target_curve_keeps_to_shared_tasks() -> None:
    dense = record("dense", 64, 1000, 1.8, {"a": 400, "b": 100}, targets={0.05: 2, 0.5: 0.5})
    sparse = record("sparse", 64, 100, 1.8, {"a": 4}, targets={0.05: 3})
    assert targets([dense, sparse]) == [0.05, 0.15, 0.5]
    pair = matched_pair(models([dense, sparse], 0.15))
    assert pair is not None
    rows = target_curve([dense, sparse], *pair)
    assert [(row.target, row.tasks) for row in rows] == [(0.05, 1), (0.15, 1)]
    assert [row.dense_edges for row in rows] == pytest.approx([800, 400])
    assert [row.sparse_edges for row in rows] == pytest.approx([12, 4])


def test_bridged_and_sparsified_models_are_kinds_of_their_own() -> None:
    ways = [record(kind, 64, 100, 1.8, {"a": 10, "b": 4}) for kind in ("bridged", "sparsified")]
    found = models([*ALL, *ways], 0.15)
    assert [model.kind for model in found] == ["bridged", "dense", "dense", "sparse", "sparsified"]
    dense = [model for model in found if model.kind == "dense"]
    assert [ratio(model, dense).kind for model in found[:1]] == ["bridged"]
    pair = matched_pair(models([DENSE_LOW, ways[0]], 0.15))
    assert pair is not None
    assert [model.kind for model in pair] == ["dense", "bridged"]


def test_a_target_is_found_though_the_last_digit_differs() -> None:
    (model,) = models([SPARSE], 0.1 + 0.05)  # 0.15000000000000002
    assert model.edges == {"a": 10, "b": 4}


def test_imported_models_are_left_out() -> None:
    ours = record("dense", 64, 1000, 2.0, {"a": 10})
    theirs = ours.model_copy(update={"kind": "imported", "config_hash": "other"})
    assert models([ours, theirs], 0.15) == models([ours], 0.15)


def test_as_few_weak_models_as_possible_are_left_out() -> None:
    tasks = {name: 10 for name in "abcd"}
    strong = [record("dense", 64, 1000, 1.6, tasks), record("sparse", 64, 100, 1.8, tasks)]
    weak = record("sparse", 8, 10, 3.0, {"d": 1})
    weaker = record("sparse", 8, 9, 3.1, {"e": 1})

    def kept(*records: object) -> list[str]:
        return [model.name for model in comparable(models(records, 0.15))]  # type: ignore[arg-type]

    both = ["dense-64-1000", "sparse-64-100"]
    assert kept(*strong, weak) == both
    assert kept(*strong, weak, weaker) == both
    assert kept(*strong, record("sparse", 8, 10, 3.0, {"a": 1, "b": 1, "c": 1})) == [
        both[0],
        "sparse-8-10",
        both[1],
    ]
    assert kept(weak, weaker) == ["sparse-8-9", "sparse-8-10"]  # two share what they share
    assert kept(strong[0]) == ["dense-64-1000"]
    assert kept() == []
