"""Sizes of configurations over those of one of them: the tasks, the intervals, and what is left out."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from made_up import record

from analysis.compare_models import choose, main, relations
from analysis.models import Configuration, Target, configurations, models
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RunRecord, write_record


def seeded(made: RunRecord, seed: int) -> RunRecord:
    """The record as another seed of the same configuration."""
    changes = {"config_hash": f"{made.name}{seed}", "seeds": {"seed": seed}, "name": f"{made.name}-{seed}"}
    return made.model_copy(update=changes)


def grouped(*records: RunRecord) -> list[Configuration]:
    return configurations(models(records, Target(0.15)))


def sparse(nonzeros: int, loss: float, edges: Mapping[str, int]) -> RunRecord:
    return record("sparse", 64, nonzeros, loss, edges)


BASE = sparse(100, 1.8, {"a": 10, "b": 40, "c": 7})


def test_the_ratio_is_the_geometric_mean_over_common_tasks_whatever_the_losses() -> None:
    """a is twice and b half as large as the base's; c and d are not of both."""
    base, other = grouped(BASE, sparse(200, 1.5, {"a": 40, "b": 40, "d": 9}))
    nodes, edges = relations(base, [base, other])
    assert (edges.measure, edges.ratio, edges.tasks) == ("edges", pytest.approx(2), 2)
    assert (edges.model, edges.base, edges.excess) == (other.name, base.name, pytest.approx(-0.3))
    assert (edges.low, edges.high) == (pytest.approx(1), pytest.approx(4))  # each task alone in a quarter
    assert (nodes.measure, nodes.ratio) == ("nodes", pytest.approx(1))


def test_seeds_are_averaged_and_resampled_on_both_sides() -> None:
    twice = sparse(200, 1.5, {"a": 20})
    four = sparse(200, 1.7, {"a": 80})
    base, other = grouped(seeded(BASE, 0), seeded(twice, 0), seeded(four, 1))
    edges = next(one for one in relations(base, [base, other]) if one.measure == "edges")
    assert (edges.seeds, edges.base_seeds, edges.loss) == (2, 1, pytest.approx(1.6))
    assert edges.ratio == pytest.approx(math.sqrt(2 * 8))
    assert (edges.low, edges.high) == (pytest.approx(2), pytest.approx(8))


def test_one_task_of_one_seed_has_no_interval() -> None:
    base, other = grouped(BASE, sparse(200, 1.5, {"a": 20}))
    assert {(one.low, one.high) for one in relations(base, [base, other])} == {(None, None)}


def test_dense_models_and_other_numbers_of_tokens_are_left_out() -> None:
    longer = sparse(300, 1.5, {"a": 20})
    longer = longer.model_copy(update={"model": longer.model.model_copy(update={"tokens": 2000})})
    base, *others = grouped(BASE, longer, record("dense", 64, 1000, 1.6, {"a": 400}))
    assert list(relations(base, [base, *others])) == []


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"^x: no such configuration; there: sparse-64-100$"):
        choose(grouped(BASE), "x")


def test_the_table_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for one in (BASE, sparse(200, 1.5, {"a": 40, "b": 40})):
        write_record(one, tmp_path / "runs" / one.name)
    assert main(["sparse-64-100", str(tmp_path / "runs"), "--csv", str(tmp_path / "table.csv")]) == 0
    assert "2.00 [1.00, 4.00]" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.set_index("measure").ratio.to_dict() == pytest.approx({"nodes": 1, "edges": 2})
    assert main(["sparse-64-100", str(tmp_path / "none")]) == 1
    assert "no such folder of runs" in capsys.readouterr().err
