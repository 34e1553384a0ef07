"""Searches: what is asked, told and chosen; failures and interruptions; the same command again."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.signals import Interrupted
from sparsity_lab.results.record import RunRecord, write_record
from sparsity_lab.sweep.job_status import FOLDER, Job, job_file, read_plan, read_status, write_status
from sparsity_lab.sweep.optuna_study import distribution
from sparsity_lab.sweep.search import BEST, JOURNAL, Search, tune
from tests.analysis.made_up import empty_record

EDGES, LOSS = metrics.GEOMEAN_EDGES.name, metrics.TEST_LOSS.name
SPACE = {"x": "interval(0.0,1.0)", "kind": "choice(plain,dear)"}
POINTS = [["task=a"], ["task=b"]]


def parts(overrides: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (override.partition("=") for override in overrides)}


class Launcher:
    """Works on jobs as runs would: fewer edges for a larger x at a higher loss, more of both where dear."""

    def __init__(self, root: Path) -> None:
        self.root, self.launched = root, list[list[str]]()
        self.fails: Callable[[list[str]], bool] = lambda overrides: False
        self.lost: Callable[[list[str]], bool] = lambda overrides: False

    def __call__(self, jobs: list[list[str]], first: int) -> None:
        assert first == len(self.launched)
        folder = self.root / "tuned" / FOLDER
        assert [tuple(job) for job in jobs] == list(read_plan(folder).jobs)[-len(jobs) :]
        for overrides in jobs:
            self.launched.append(overrides)
            if self.lost(overrides):
                raise Interrupted(signal.SIGTERM)
            state: Any = "failed" if self.fails(overrides) else "finished"
            name = f"run-{job_file(folder, overrides).stem}"
            write_status(folder, Job(overrides=tuple(overrides), state=state, name=name))
            if state == "finished":
                write_record(self.record(parts(overrides), name), self.root / "tuned" / name)

    def record(self, values: dict[str, str], name: str) -> RunRecord:
        x, dear = float(values["x"]), values["kind"] == "dear"
        measured = {EDGES: 100 * (1.5 - x) + 50 * dear, LOSS: x + dear}
        no_circuit = x > 0.8
        return empty_record(name, sweep="tuned", metrics={} if no_circuit else measured)


def search(root: Path, launcher: Launcher, n_trials: int = 6, batch: int = 2, **more: Any) -> int:
    config = OmegaConf.create({"root": str(root), "sweep_name": "tuned", "x": 0.5, "kind": "plain"})
    return tune(Search(space=SPACE, n_trials=n_trials, batch=batch, **more), POINTS, config, launcher)


def test_the_first_trial_of_each_point_is_the_configs_own_and_the_best_are_written(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    assert search(tmp_path, launcher, n_trials=12) == 0
    assert len(launcher.launched) == 24
    for task in ("a", "b"):
        first = next(job for job in launcher.launched if f"task={task}" in job)
        assert first == [f"task={task}", "x=0.5", "kind=plain"]
    found = read_json(tmp_path / "tuned" / BEST)
    assert [study["study"] for study in found] == POINTS
    for study in found:
        assert study["finished"] == 12
        assert study["best"]
        edges = [one["objectives"][EDGES] for one in study["best"]]
        losses = [one["objectives"][LOSS] for one in study["best"]]
        assert edges == sorted(edges)
        assert losses == sorted(losses, reverse=True)  # none is better in both
        assert {one["values"]["kind"] for one in study["best"]} == {"plain"}
        assert all(one["values"]["x"] <= 0.8 for one in study["best"])  # the others have no circuit
        assert all((tmp_path / "tuned" / one["run"]).is_dir() for one in study["best"])


def test_the_same_command_again_begins_nothing_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    search(tmp_path, Launcher(tmp_path))
    before = read_json(tmp_path / "tuned" / BEST)
    again = Launcher(tmp_path)
    assert search(tmp_path, again) == 0
    assert again.launched == []
    assert read_json(tmp_path / "tuned" / BEST) == before
    more = Launcher(tmp_path)
    assert search(tmp_path, more, n_trials=8) == 0
    assert len(more.launched) == 4
    assert [study["finished"] for study in read_json(tmp_path / "tuned" / BEST)] == [8, 8]


def test_a_trial_that_fails_ends_nothing_and_is_made_up_for_by_the_same_command(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    launcher.fails = lambda overrides: "task=b" in overrides and len(launcher.launched) < 6
    assert search(tmp_path, launcher) == 2
    assert len(launcher.launched) == 12
    again = Launcher(tmp_path)
    assert search(tmp_path, again) == 0
    assert len(again.launched) == 2
    assert all("task=b" in overrides for overrides in again.launched)
    folder = tmp_path / "tuned" / FOLDER
    states = {read_status(job_file(folder, job)).state for job in read_plan(folder).jobs}  # type: ignore[union-attr]
    assert states == {"finished"}


def test_an_interrupted_search_goes_on_with_the_trials_that_were_begun(tmp_path: Path) -> None:
    whole, broken = Launcher(tmp_path / "whole"), Launcher(tmp_path / "broken")
    search(tmp_path / "whole", whole, batch=1)
    broken.lost = lambda overrides: len(broken.launched) == 5
    with pytest.raises(Interrupted):
        search(tmp_path / "broken", broken, batch=1)
    resumed = Launcher(tmp_path / "broken")
    assert search(tmp_path / "broken", resumed, batch=1) == 0
    assert broken.launched[-1] in resumed.launched
    assert broken.launched[:4] + resumed.launched == whole.launched


def test_a_value_that_is_given_is_not_searched_for(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    config = OmegaConf.create({"root": str(tmp_path), "sweep_name": "tuned", "x": 0.5, "kind": "plain"})
    assert tune(Search(space=SPACE, n_trials=3), [["kind=dear"]], config, launcher) == 0
    assert [job[0] for job in launcher.launched] == ["kind=dear"] * 3
    assert all(len(job) == 2 for job in launcher.launched)


def test_ranges_are_written_as_hydra_writes_them() -> None:
    drawn: Any = distribution("k", "tag(log, interval(1e-4, 0.1))")
    assert (drawn.low, drawn.high, drawn.log) == (1e-4, 0.1, True)
    drawn = distribution("k", "int(interval(1, 9))")
    assert type(drawn).__name__ == "IntDistribution"
    assert (drawn.low, drawn.high) == (1, 9)
    drawn = distribution("k", "choice(a, true, 0.5)")
    assert drawn.choices == ("a", "True", "0.5")
    for text in ("3", "range(1,4)", "[1,2]"):
        with pytest.raises(UserError, match=r"no range; allowed: choice"):
            distribution("k", text)


def test_optuna_is_imported_by_searches_alone() -> None:
    code = "import sys, sparsity_lab.sweep.sweeper; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_objective_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"objectives: \['colour'\]: allowed: .*circuits/geomean_edges"):
        search(tmp_path, Launcher(tmp_path), objectives=["colour"])
    assert not (tmp_path / "tuned" / JOURNAL).exists()
