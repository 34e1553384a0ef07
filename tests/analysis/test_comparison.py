"""Ratios of configurations: on which tasks, resampled how, and what is said where there is none."""

import math
from typing import Any

import pytest
from made_up import record

from analysis.comparison import Ratio, known_measures, ratio, ratios, subsets, usable
from analysis.models import Configuration, Target, configurations, models
from sparsity_lab.results.record import RunRecord
from sparsity_lab.tasks.shortcuts_record import Shortcuts

TARGET = Target(0.15)
DENSE = [
    record("dense", 64, 1000, 1.6, {"a": 400, "b": 100, "c": 70}),
    record("dense", 32, 500, 2.0, {"a": 100, "b": 100, "c": 70}),
]


def grouped(*records: RunRecord) -> list[Configuration]:
    return configurations(models(records, TARGET))


def compare(sparse: RunRecord, *dense: RunRecord, **more: Any) -> Ratio:
    return ratio(grouped(sparse)[0], grouped(*dense), TARGET, **more)


def shortcuts(bag_accuracy: float) -> Shortcuts:
    """What is known of a task whose prompts a bag of tokens answers so often."""
    return Shortcuts(rule="", rule_accuracy=0.5, bag_accuracy=bag_accuracy, train_prompts=9, test_prompts=9)


def changed(made: RunRecord, **by_task: Any) -> RunRecord:
    """The record with other fields of its tasks: `unpruned={"a": 0.1}`, `kind={"a": "copy"}`."""
    tasks = []
    for task in made.tasks:
        update = {name: values[task.task] for name, values in by_task.items() if task.task in values}
        if "unpruned" in update:
            assert task.unpruned is not None
            update["unpruned"] = task.unpruned.model_copy(update={"raw_loss": update["unpruned"]})
        if "pruned_edges" in update:
            pruned = {"pruned_edges": update.pop("pruned_edges")}
            update["curve"] = tuple(point.model_copy(update=pruned) for point in task.curve)
        tasks.append(task.model_copy(update=update))
    return made.model_copy(update={"tasks": tuple(tasks)})


def test_ratio_at_matched_loss_by_hand() -> None:
    """Half-way in loss a dense model needs sqrt(400·100) = 200 edges for a, 100 for b: 20 and 25 times."""
    found = compare(record("sparse", 64, 100, 1.8, {"a": 10, "b": 4}), *DENSE)
    assert (found.sparse_model, found.width, found.nonzeros, found.loss) == ("sparse-64-100", 64, 100, 1.8)
    assert (found.tasks, found.task_names, found.seeds) == (2, ("a", "b"), 1)
    assert found.dense_models == ("dense-64-1000", "dense-32-500")
    assert found.ratio == pytest.approx(math.sqrt(20 * 25))
    assert (found.low, found.high) == pytest.approx((20, 25))  # each in a quarter of the draws of two tasks
    assert (found.note, found.resampled) == ("", "tasks, twins as one")
    nodes = compare(record("sparse", 64, 100, 1.8, {"a": 10, "b": 4}), *DENSE, measure="nodes")
    assert nodes.ratio == pytest.approx(1)


def test_a_single_task_has_no_interval_nor_have_twins() -> None:
    for edges in ({"a": 10}, {"a": 10, "a_twin": 12}):
        dense = [record("dense", 64, 1000, loss, dict.fromkeys(("a", "a_twin"), 99)) for loss in (1.6, 2.0)]
        dense[1] = dense[1].model_copy(update={"config_hash": "other", "model": DENSE[1].model})
        found = compare(record("sparse", 64, 100, 1.7, edges), *dense)
        assert (found.low, found.high, found.resampled) == (None, None, "")
        assert found.note == "a single task of a single seed has no interval"


def test_what_cannot_be_compared_says_why() -> None:
    outside = compare(record("sparse", 64, 100, 2.01, {"a": 10}), *DENSE)
    assert (outside.ratio, outside.low, outside.high, outside.task_names) == (None, None, None, ())
    assert outside.note == "outside the dense models' range (1.600 to 2.000 nats)"
    strange = compare(record("sparse", 64, 100, 1.8, {"z": 10}), *DENSE)
    assert strange.note == "no task with a circuit in a dense model too"
    assert compare(record("sparse", 64, 100, 1.8, {"z": 10})).note == "no dense model"


def test_a_weak_dense_model_is_left_out_and_does_not_empty_the_comparison() -> None:
    weak = record("dense", 8, 10, 1.9, {"a": 1})
    sparse = record("sparse", 64, 100, 1.8, {"a": 10, "b": 4, "c": 7})
    assert compare(sparse, *DENSE, weak) == compare(sparse, *DENSE)
    assert weak.name not in [one.name for one in usable(grouped(sparse)[0], grouped(*DENSE, weak))]
    beyond = compare(
        record("sparse", 64, 100, 2.3, {"a": 1, "b": 1}), *DENSE, record("dense", 8, 10, 2.4, {})
    )
    assert beyond.note == "outside the range of the dense models to compare (1.600 to 2.000 nats)"


def test_kinds_of_task_are_resampled_where_there_are_enough() -> None:
    tasks = "abcdefgh"
    dense = [
        record("dense", width, 1000, loss, {task: 10 * (1 + i) for i, task in enumerate(tasks)})
        for width, loss in ((64, 1.6), (32, 2.0))
    ]
    sparse = record("sparse", 64, 100, 1.8, dict.fromkeys(tasks, 2))
    kinds = {task: ["copy", "count", "state", "binding"][i // 2] for i, task in enumerate(tasks)}
    by_kind = compare(changed(sparse, kind=kinds), *dense)
    by_task = compare(changed(sparse, kind={task: "copy" for task in tasks}), *dense)
    assert (by_kind.resampled, by_task.resampled) == ("kinds of task", "tasks, twins as one")
    assert by_kind.ratio == by_task.ratio
    assert by_kind.low is not None
    assert by_task.low is not None
    assert by_kind.low < by_task.low


def test_seeds_are_resampled_before_tasks() -> None:
    sparse = record("sparse", 64, 100, 1.8, {"a": 10, "b": 4})
    more = record("sparse", 64, 100, 1.8, {"a": 20, "b": 8}).model_copy(
        update={"config_hash": "1", "name": "second"}
    )
    (both,) = grouped(sparse, more)
    found = ratio(both, grouped(*DENSE), TARGET)
    assert found.seeds == 1  # of the dense models
    assert found.resampled == "seeds and tasks, twins as one"
    assert found.ratio == pytest.approx(math.sqrt(20 * 25 / 2))
    assert found.low == pytest.approx(10, rel=0.01)
    assert found.high == pytest.approx(25, rel=0.01)


def test_every_measure_that_both_kinds_have_is_compared() -> None:
    sparse = changed(record("sparse", 64, 100, 1.8, {"a": 8, "b": 4}), pruned_edges={"a": 4, "b": 4})
    assert known_measures(grouped(sparse, *DENSE)) == ["nodes", "edges"]
    dense = [changed(one, pruned_edges=dict.fromkeys("abc", 12)) for one in DENSE]
    found = list(ratios(grouped(sparse), grouped(*dense), TARGET))
    assert [one.measure for one in found] == ["nodes", "edges", "pruned_edges"]
    assert found[2].ratio == pytest.approx(3)


def test_parts_of_the_tasks_are_compared_apart() -> None:
    sparse = changed(record("sparse", 64, 100, 1.8, {"a": 10, "b": 4}), unpruned={"a": 0.01, "b": 0.01})
    sparse = changed(sparse, kind={"a": "copy", "b": "count"})
    sparse = changed(sparse, shortcuts={"a": shortcuts(0.85), "b": shortcuts(0.9)})
    dense = [changed(one, unpruned={"a": 0.01, "b": 0.07, "c": 0.01}) for one in DENSE]
    parts = {
        one.among: one.task_names
        for one in subsets(grouped(sparse), grouped(*dense), TARGET, ["a", "b"])
        if one.measure == "edges"
    }
    assert parts == {
        "of the pictures": ("a", "b"),
        "unpruned loss below 0.05": ("a",),
        "unpruned loss of 0.05 or more": ("b",),
        "bag of tokens right on at most 85%": ("a",),
        "bag of tokens right on more than 85%": ("b",),
        "kind: copy": ("a",),
        "kind: count": ("b",),
    }
