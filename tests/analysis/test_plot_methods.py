"""Sizes of methods over the tasks that all of them solve, and what is said without anything to compare."""

from pathlib import Path

import pytest

from analysis.plot_methods import compare, main
from sparsity_lab.base import UserError
from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.results.record import CurvePoint, RunRecord, TaskResult, write_record

SCORES = Scores(loss=0.1, calibrated_loss=0.1, accuracy=1.0)


def run(method: str, edges: dict[str, int], model: str = "m") -> RunRecord:
    tasks = tuple(
        TaskResult(
            task=task,
            status="circuit",
            reason="",
            unpruned=SCORES,
            curve=(CurvePoint(target=0.15, nodes=size, edges=size, select=SCORES, test=SCORES),),
            circuit="c.json",
        )
        for task, size in edges.items()
    )
    return RunRecord(
        name=method,
        sweep="methods",
        overrides=(),
        config={"pruning": {"method": method, "selection": "raw"}},
        config_hash=method,
        git_commit=None,
        git_dirty=None,
        packages={},
        python="3.11",
        seeds={},
        stages={"model": model},
        metrics={},
        tasks=tasks,
    )


def test_sizes_are_over_the_shared_tasks() -> None:
    rows = compare([run("masks", {"a": 4, "b": 9}), run("gradient", {"a": 16, "b": 36, "c": 1})])
    found = {row.method: (row.edges, row.times, row.tasks) for row in rows.itertuples()}
    assert found["masks"] == pytest.approx((6, 1, 2))
    assert found["gradient"] == pytest.approx((24, 4, 2))


def test_different_models_are_not_compared() -> None:
    with pytest.raises(UserError, match="2 runs of 2 models"):
        compare([run("masks", {"a": 1}), run("gradient", {"a": 1}, model="other")])


def test_the_figure_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, edges in (("masks", 4), ("gradient", 40)):
        write_record(run(method, {"a": edges}), tmp_path / method)
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "methods" / "methods.svg").stat().st_size > 1000
    assert "gradient" in capsys.readouterr().out
    assert main([str(tmp_path), "--sweep", "other"]) == 1
