"""Sizes of methods over the tasks that all of them solve, and what is said without anything to compare."""

from pathlib import Path
from typing import Any

import pytest
from made_up import record

from analysis.plot_methods import colours, compare, main
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import RunRecord, write_record

FINDERS: dict[str, dict[str, Any]] = {
    "masks": {"kind": "masks", "steps": 200},
    "gradient": {"kind": "attribution", "slope": "gradient"},
    "mine": {"kind": "file", "path": "somewhere/mine.py", "options": None},
}


def run(method: str, edges: dict[str, int], model: str = "m", polish: bool = True) -> RunRecord:
    changes = {
        "name": method,
        "config": {"finder": FINDERS[method], "pruning": {"selection": "raw", "polish": polish}},
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


def test_a_finder_from_outside_has_its_files_name_and_a_colour_of_its_own() -> None:
    rows = compare([run("masks", {"a": 4}), run("mine", {"a": 8})])
    assert set(rows["method"]) == {"masks + polish", "mine + polish"}
    told = colours([*rows["method"], "other"])
    assert len(set(told.values())) == 3
    assert told["masks"] == colours(["masks"])["masks"]


def test_a_record_from_before_finders_had_their_own_section_is_still_read() -> None:
    old = run("masks", {"a": 4}).model_copy(
        update={"config": {"pruning": {"method": "integrated", "selection": "raw", "polish": False}}}
    )
    assert set(compare([run("masks", {"a": 4}), old])["method"]) == {"masks + polish", "integrated"}


def test_pruned_edges_have_their_own_column() -> None:
    pruned = run("gradient", {"a": 16, "b": 36})
    tasks = tuple(
        task.model_copy(
            update={"curve": tuple(p.model_copy(update={"pruned_edges": p.edges // 4}) for p in task.curve)}
        )
        for task in pruned.tasks
    )
    rows = compare([run("masks", {"a": 4, "b": 9}), pruned.model_copy(update={"tasks": tasks})])
    found = rows.set_index("method")["pruned_edges"]
    assert found["gradient + polish"] == pytest.approx(6)
    assert found.isna()["masks + polish"]


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
