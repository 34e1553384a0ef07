"""Sizes of methods over the tasks that all of them solve, and what is said without anything to compare."""

from pathlib import Path

import pytest
from made_up import record

from analysis.plot_methods import compare, main
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RunRecord, write_record


def run(method: str, edges: dict[str, int], model: str = "m", polish: bool = True) -> RunRecord:
    changes = {
        "name": method,
        "config": {"pruning": {"method": method, "selection": "raw", "polish": polish}},
        "config_hash": method,
        "stages": {"model": model},
    }
    return record("sparse", 256, 60_000, 1.9, edges, sweep="methods").model_copy(update=changes)


def test_sizes_are_over_the_shared_tasks() -> None:
    runs = [run("masks", {"a": 4, "b": 9}), run("gradient", {"a": 16, "b": 36, "c": 1}, polish=False)]
    rows = compare(runs)
    found = {row.method: (row.edges, row.times, row.tasks) for row in rows.itertuples()}
    assert found["masks + polish"] == pytest.approx((6, 1, 2))
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
