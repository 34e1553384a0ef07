"""The frontier's points and which models it compares, on records small enough to work by hand."""

import math
from typing import Any

import pytest
from made_up import record, without_circuit

from analysis.frontier import (
    by_kind,
    comparable,
    lower_envelope,
    matched_pair,
    measured,
    shared,
    spread,
    target_curve,
)
from analysis.models import Configuration, Target, configurations, models, targets
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RunRecord

TARGET = Target(0.15)
DENSE_LOW = record("dense", 64, 1000, 1.6, {"a": 400, "b": 100, "c": 70})
DENSE_HIGH = record("dense", 32, 500, 2.0, {"a": 100, "b": 100, "c": 70})
SPARSE = record("sparse", 64, 100, 1.8, {"a": 10, "b": 4})
ALL = [SPARSE, DENSE_LOW, DENSE_HIGH]


def grouped(*records: RunRecord) -> list[Configuration]:
    return configurations(models(records, TARGET))


def seeded(made: RunRecord, seed: int, **changes: Any) -> RunRecord:
    """The same configuration with another seed."""
    config = {"model": {"d_model": made.model.d_model}, "seed": seed, "tasks": {"seed": seed, "names": "all"}}
    own = {"seeds": {"seed": seed}, "config": config, "config_hash": f"{seed}00000"}
    return made.model_copy(update=own | {"name": f"{made.name}-{seed}00000"} | changes)


def test_sizes_by_kind_of_task() -> None:
    made = record(
        "sparse", 8, 10, 1.9, {"a": 4, "b": 9, "c": 7}, others=(without_circuit("d", "not_learned"),)
    )
    kinds = {"a": "copy", "b": "copy", "c": "count", "d": "count"}
    tasks = tuple(task.model_copy(update={"kind": kinds[task.task]}) for task in made.tasks)
    (model,) = models([made.model_copy(update={"tasks": tasks})], TARGET)
    copy, count = by_kind([model])
    assert (copy.kind, copy.tasks, copy.learned, copy.circuits) == ("copy", 2, 2, 2)
    assert (copy.geomean_nodes, copy.geomean_edges) == pytest.approx((3, 6))
    assert copy.geomean_pruned_edges is None
    assert (count.kind, count.tasks, count.learned, count.circuits) == ("count", 2, 1, 1)


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
    (model,) = models([record("sparse", 64, 100, 1.8, {"a": 10}, others=others)], TARGET)
    assert model.learned == {"a", "e", "m"}
    assert model.solved_by_nothing == {"e"}
    assert model.edges == {"a": 10}


def test_shared_tasks_are_those_of_every_model() -> None:
    assert shared(grouped(*ALL)) == ["a", "b"]
    assert shared([]) == []


def test_shared_tasks_are_those_of_every_seed_unless_a_seed_has_few() -> None:
    tasks = {"a": 1, "b": 1, "c": 1, "d": 1}
    for lacking, expected in (("d", ["a", "b", "c"]), ("bcd", ["a", "b", "c", "d"])):
        weaker = {task: 1 for task in tasks if task not in lacking}
        seeds = [
            seeded(record("sparse", 8, 10, 1.9, edges), seed) for seed, edges in enumerate((tasks, weaker))
        ]
        (one,) = grouped(*seeds)
        assert one.seeds == 2
        assert shared([one]) == expected


def test_size_is_a_geometric_mean() -> None:
    (sparse,) = grouped(SPARSE)
    assert sparse.size(["a", "b"]) == pytest.approx(math.sqrt(40))
    assert sparse.size(["a", "b"], "nodes") == pytest.approx(3)
    assert sparse.size(["a", "b"], "pruned_edges") is None
    assert sparse.size(["c"]) is None
    (empty,) = grouped(record("sparse", 64, 100, 2.0, {"a": 0}))
    assert empty.size(["a"]) == 1


def test_runs_that_differ_in_their_seeds_alone_are_one_configuration() -> None:
    found = grouped(
        seeded(SPARSE, 0),
        seeded(record("sparse", 64, 100, 1.7, {"a": 40, "b": 4}), 1),
        seeded(record("sparse", 64, 200, 1.7, {"a": 40}), 2, config={"model": {"d_model": 64}, "lr": 2}),
    )
    assert [(one.name, one.seeds) for one in found] == [("sparse-64-100", 2), ("sparse-64-200-200000", 1)]
    both = found[0]
    assert both.loss == pytest.approx(1.75)
    assert both.size(["a"]) == pytest.approx(20)
    assert spread(both, ["a"], "edges") == pytest.approx((20, 10, 40))
    assert spread(both, ["a", "b"], "edges") == pytest.approx((math.sqrt(80), math.sqrt(40), math.sqrt(160)))


def test_a_run_with_evidence_is_of_the_same_configuration_as_one_without() -> None:
    plain, checked = (seeded(SPARSE, seed) for seed in (0, 1))
    config = checked.config | {"evidence": {"enabled": True, "tasks": ["a"]}}
    plain = plain.model_copy(update={"config": plain.config | {"evidence": {"enabled": False}}})
    (one,) = grouped(plain, checked.model_copy(update={"config": config}))
    assert one.seeds == 2


def test_records_without_a_config_are_told_apart_by_shape() -> None:
    assert len(grouped(*ALL)) == 3


def test_the_same_config_counts_once() -> None:
    newer = SPARSE.model_copy(update={"metrics": {**SPARSE.metrics, "validation/loss": 1.75}})
    (model,) = models([SPARSE, newer], TARGET)
    assert model.loss == 1.75


def test_a_record_without_what_the_frontier_needs_is_named() -> None:
    with pytest.raises(UserError, match=r"record of sparse-64-100: lacks 'validation/loss'"):
        models([SPARSE.model_copy(update={"metrics": {"model/weights": 1.0, "model/nonzeros": 1.0}})], TARGET)


def test_the_matched_pair_is_the_closest_in_loss_that_shares_a_task() -> None:
    lonely = record("sparse", 32, 50, 2.0, {"z": 3})  # at a dense model's very loss, but on another task
    near = record("sparse", 128, 200, 1.65, {"a": 5})
    pair = matched_pair(grouped(*ALL, lonely, near))
    assert pair is not None
    assert [one.name for one in pair] == ["dense-64-1000", "sparse-128-200"]
    assert matched_pair(grouped(SPARSE)) is None


def test_the_matched_pair_shares_half_as_many_tasks_as_the_best() -> None:
    tasks = dict.fromkeys("abcd", 5)
    weak = record("sparse", 8, 10, 2.0, {"a": 1})  # nearest in loss, on one task of four
    pair = matched_pair(
        grouped(record("dense", 64, 9, 2.0, tasks), record("sparse", 64, 9, 2.1, tasks), weak)
    )
    assert pair is not None
    assert pair[1].name == "sparse-64-9"


def test_of_pairs_alike_in_loss_the_one_of_most_seeds_matches() -> None:
    def seeds(kind: str, *losses: float) -> Configuration:
        found = [model for loss in losses for model in models([record(kind, 64, 9, loss, {"a": 4})], TARGET)]
        return Configuration(f"{kind} {losses}", tuple(found))

    dense, one = seeds("dense", 1.99, 2.01), seeds("sparse", 2.0)
    assert matched_pair([dense, one, near := seeds("sparse", 2.0, 2.016)]) == (dense, near)
    assert matched_pair([dense, one, seeds("sparse", 2.0, 2.024)]) == (dense, one)


def test_the_target_curve_keeps_to_shared_tasks_and_has_every_measure() -> None:
    dense = record("dense", 64, 1000, 1.8, {"a": 400, "b": 100}, targets={0.05: 2, 0.5: 0.5})
    sparse = record("sparse", 64, 100, 1.8, {"a": 4}, targets={0.05: 3})
    assert targets([dense, sparse]) == [Target(0.05), Target(0.15), Target(0.5)]
    pair = matched_pair(grouped(dense, sparse))
    assert pair is not None
    rows = target_curve([dense, sparse], *pair)
    assert [(row.target, row.measure, row.tasks) for row in rows] == [
        (0.05, "nodes", 1), (0.05, "edges", 1), (0.15, "nodes", 1), (0.15, "edges", 1),
    ]  # fmt: skip
    assert [row.dense for row in rows[1::2]] == [pytest.approx((800,) * 3), pytest.approx((400,) * 3)]
    assert [row.sparse[0] for row in rows[1::2]] == pytest.approx([12, 4])


def test_a_relative_target_is_another_target_than_the_same_number_of_nats() -> None:
    (task, other) = SPARSE.tasks
    point = task.curve[0].model_copy(
        update={"target": 0.19, "target_kind": "relative", "excess": 0.15, "edges": 7, "pruned_edges": 5}
    )
    task = task.model_copy(update={"curve": (*task.curve, point)})
    made = SPARSE.model_copy(update={"tasks": (task, other)})
    assert targets([made]) == [TARGET, Target(0.15, "relative")]
    (absolute,), (relative,) = models([made], TARGET), models([made], Target(0.15, "relative"))
    assert absolute.edges == {"a": 10, "b": 4}
    assert relative.edges == {"a": 7}
    assert relative.sizes["pruned_edges"] == {"a": 5}
    assert (task.at(0.19), task.at(0.19, "relative")) == (None, None)
    assert str(Target(0.15, "relative")) == "0.15 nats above the whole model's loss"


def test_a_measure_counts_if_every_model_has_it() -> None:
    pruned = tuple(
        task.model_copy(update={"curve": tuple(p.model_copy(update={"pruned_edges": 2}) for p in task.curve)})
        for task in SPARSE.tasks
    )
    with_pruned = SPARSE.model_copy(update={"tasks": pruned})
    assert measured(grouped(with_pruned), ["a", "b"]) == ["nodes", "edges", "pruned_edges"]
    assert measured(grouped(with_pruned, DENSE_LOW), ["a", "b"]) == ["nodes", "edges"]


def test_bridged_and_sparsified_models_are_kinds_of_their_own() -> None:
    ways = [record(kind, 64, 100, 1.8, {"a": 10, "b": 4}) for kind in ("bridged", "sparsified")]
    assert [one.first.kind for one in grouped(*ALL, *ways)] == [
        "bridged", "dense", "dense", "sparse", "sparsified",
    ]  # fmt: skip
    pair = matched_pair(grouped(DENSE_LOW, ways[0]))
    assert pair is not None
    assert [one.first.kind for one in pair] == ["dense", "bridged"]


def test_a_target_is_found_though_the_last_digit_differs() -> None:
    (model,) = models([SPARSE], Target(0.1 + 0.05))  # 0.15000000000000002
    assert model.edges == {"a": 10, "b": 4}


def test_imported_models_are_left_out() -> None:
    ours = record("dense", 64, 1000, 2.0, {"a": 10})
    theirs = ours.model_copy(update={"kind": "imported", "config_hash": "other"})
    assert models([ours, theirs], TARGET) == models([ours], TARGET)


def test_as_few_weak_models_as_possible_are_left_out() -> None:
    tasks = {name: 10 for name in "abcd"}
    strong = [record("dense", 64, 1000, 1.6, tasks), record("sparse", 64, 100, 1.8, tasks)]
    weak = record("sparse", 8, 10, 3.0, {"d": 1})
    weaker = record("sparse", 8, 9, 3.1, {"e": 1})

    def kept(*records: RunRecord) -> list[str]:
        return [one.name for one in comparable(grouped(*records))]

    both = ["dense-64-1000", "sparse-64-100"]
    assert kept(*strong, weak) == both
    assert kept(*strong, weak, weaker) == both
    assert kept(*strong, record("sparse", 8, 10, 3.0, {"a": 1, "b": 1})) == [both[0], "sparse-8-10", both[1]]
    assert kept(weak, weaker) == ["sparse-8-9", "sparse-8-10"]  # two share what they share
    assert kept(strong[0]) == ["dense-64-1000"]
    assert kept() == []


def test_the_lower_envelope_is_what_no_other_point_beats_in_both() -> None:
    points = [(10.0, 2.0), (40.0, 1.6), (20.0, 1.9), (50.0, 1.8), (10.0, 2.1)]
    assert lower_envelope(points) == [1, 2, 0]
    assert lower_envelope([]) == []
