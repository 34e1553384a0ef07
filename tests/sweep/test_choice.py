"""A choice by trials: which trials there are, which value wins, and what waits when trials are missing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import write_record
from sparsity_lab.sweep.choice import Choice, check, chosen, portions, trial_lines, with_choice
from sparsity_lab.sweep.job_status import FOLDER, Foreseen, Job, Work, job_file, read_plan, write_status
from sparsity_lab.sweep.status_table import jobs_of, table_with_trials
from sparsity_lab.sweep.sweeper import GridsSweeper, grid_jobs
from tests.analysis.made_up import empty_record

LOSS = metrics.VALIDATION_LOSS.name
CHOICE = Choice(
    key="rate",
    values=[0.1, 0.2],
    alike=["kind"],
    overrides={"sweep_name": "rates", "seed": "7,8", "tokens": 5},
)
JOBS = grid_jobs(
    [{"kind": "a", "size": "1,2", "seed": "0"}, {"kind": "b", "seed": "0"}], ["+sweep=s", "tokens=90"]
)
# loss of each kind at each rate, the mean over the two seeds of the trials
LOSSES = {("a", "0.1"): 2.0, ("a", "0.2"): 1.9, ("b", "0.1"): 2.5, ("b", "0.2"): 2.6}


def parts(overrides: Any) -> dict[str, str]:
    return dict(override.lstrip("+").split("=") for override in overrides)


def test_each_group_is_tried_once_by_its_first_job_with_the_changes() -> None:
    lines = trial_lines(CHOICE, JOBS)
    assert lines == {
        ("kind=a",): [
            "kind=a",
            "size=1",
            "+sweep=s",
            "sweep_name=rates",
            "seed=7,8",
            "tokens=5",
            "rate=0.1,0.2",
        ],
        ("kind=b",): ["kind=b", "+sweep=s", "sweep_name=rates", "seed=7,8", "tokens=5", "rate=0.1,0.2"],
    }
    assert len(grid_jobs([], lines["kind=a",])) == 4


def test_a_job_that_gives_the_value_needs_no_trials() -> None:
    given = [[*job, "rate=0.3"] for job in JOBS]
    assert trial_lines(CHOICE, given) == {}
    assert [with_choice(CHOICE, job, {}) for job in given] == given


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"values": []}, "hydra.sweeper.choice.values: []: allowed: one or more values of rate"),
        ({"metric": "colour"}, "hydra.sweeper.choice.metric: colour: allowed: validation/loss"),
        ({"groups_at_a_time": 0}, "hydra.sweeper.choice.groups_at_a_time: 0: allowed: null, or 1 or more"),
        ({"overrides": {"seed": 1}}, "hydra.sweeper.choice.overrides.sweep_name: None: the trials need"),
        ({"overrides": {"sweep_name": "s"}}, "hydra.sweeper.choice.overrides.sweep_name: s: the trials need"),
    ],
)
def test_wrong_settings_are_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        check(Choice(**{"key": "rate", "values": [1], "overrides": {"sweep_name": "r"}} | changes), "s")
    assert str(caught.value).startswith(line)


class Launcher:
    """Works on jobs as runs would; the trials' losses are those of LOSSES, the seeds 0.1 apart."""

    def __init__(self, root: Path) -> None:
        self.root, self.launched = root, list[dict[str, str]]()
        self.fails: dict[str, str] = {"kind": "none"}
        self.joblib = {"n_jobs": 2}

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> None:
        for overrides in jobs:
            given = parts(overrides)
            self.launched.append(given)
            runs = self.root / given.get("sweep_name", "s")
            failed = self.fails.items() <= given.items()
            name = f"run{job_file(runs, overrides).stem}"
            state: Any = "failed" if failed else "finished"
            write_status(runs / FOLDER, Job(overrides=tuple(overrides), state=state, name=name, worked=10.0))
            seed = int(given["seed"])
            loss = LOSSES[given["kind"], given["rate"]] + 0.1 * (seed - 7.5)
            write_record(empty_record(name, metrics={LOSS: loss}), runs / name)


def sweeper(root: Path, launcher: Launcher) -> GridsSweeper:
    """A sweeper of JOBS with Hydra and the runs left out; a job composes to its own overrides."""
    grids = [{"kind": "a", "size": "1,2", "seed": "0"}, {"kind": "b", "seed": "0"}]
    made = GridsSweeper(grids, choice=CHOICE)
    made.config = OmegaConf.create(
        {"root": str(root), "sweep_name": "s", "hydra": {"sweeper": {"grids": grids}}}
    )
    made.launcher = launcher  # type: ignore[assignment]
    loader = SimpleNamespace(load_sweep_config=lambda config, job: OmegaConf.create(parts(job)))
    made.hydra_context = SimpleNamespace(config_loader=loader)  # type: ignore[assignment]
    return made


def test_the_jobs_get_the_value_with_the_best_mean_after_all_trials(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    sweeper(tmp_path, launcher).sweep(["+sweep=s", "tokens=90"])
    trials, jobs = launcher.launched[:8], launcher.launched[8:]
    assert {trial["sweep_name"] for trial in trials} == {"rates"}
    assert {(trial["tokens"], trial["seed"]) for trial in trials} == {("5", "7"), ("5", "8")}
    assert [(job["kind"], job.get("size"), job["rate"], job["tokens"]) for job in jobs] == [
        ("a", "1", "0.2", "90"),
        ("a", "2", "0.2", "90"),
        ("b", None, "0.1", "90"),
    ]
    assert read_plan(tmp_path / "s" / FOLDER).before == "rates"
    shown = table_with_trials(tmp_path / "s" / FOLDER)
    assert shown.startswith("trials, which come first (rates):\nfinished")
    assert "8 jobs: 8 finished\n\ns:\n" in shown
    assert shown.endswith("3 jobs: 3 finished")


def test_portions_end_before_the_first_job_of_a_later_group() -> None:
    jobs = [
        ["kind=a", "seed=0"],
        ["kind=b", "seed=0"],
        ["kind=b", "rate=1"],
        ["kind=c"],
        ["kind=a", "seed=1"],
    ]
    groups = [("kind=a",), ("kind=b",), ("kind=c",)]
    one, two = replace(CHOICE, groups_at_a_time=1), replace(CHOICE, groups_at_a_time=2)
    assert portions(CHOICE, jobs, groups) == [(groups, [0, 1, 2, 3, 4])]
    assert portions(one, jobs, groups) == [([groups[0]], [0]), ([groups[1]], [1, 2]), ([groups[2]], [3, 4])]
    assert portions(two, jobs, groups) == [(groups[:2], [0, 1, 2]), (groups[2:], [3, 4])]


def test_group_by_group_the_jobs_run_before_the_next_trials(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    launcher.fails = {"kind": "a", "rate": "0.2", "seed": "8"}
    made = sweeper(tmp_path, launcher)
    made.choice = replace(CHOICE, groups_at_a_time=1)
    with pytest.raises(HydraException, match=r"^2 of 3 jobs are not finished; 2 of them wait for trials"):
        made.sweep(["+sweep=s", "tokens=90"])
    told = [(job["kind"], job.get("sweep_name", "s")) for job in launcher.launched]
    assert told == [("a", "rates")] * 4 + [("b", "rates")] * 4 + [("b", "s")]
    again = Launcher(tmp_path)
    made = sweeper(tmp_path, again)
    made.choice = replace(CHOICE, groups_at_a_time=1)
    made.sweep(["+sweep=s", "tokens=90"])
    told = [(job["kind"], job.get("sweep_name", "s")) for job in again.launched]
    assert told == [("a", "rates")] * 4 + [("a", "s")] * 2 + [("b", "rates")] * 4 + [("b", "s")]
    assert [overrides[0] for _, _, overrides in jobs_of(tmp_path / "s" / FOLDER)] == [
        "kind=a",
        "kind=a",
        "kind=b",
    ]


def test_jobs_whose_trials_fail_wait_and_the_others_run(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    launcher.fails = {"kind": "b", "rate": "0.2", "seed": "8"}
    with pytest.raises(HydraException, match=r"^1 of 3 jobs are not finished; 1 of them wait for trials"):
        sweeper(tmp_path, launcher).sweep(["+sweep=s", "tokens=90"])
    assert [job["kind"] for job in launcher.launched[8:]] == ["a", "a"]
    states = [state for state, _, _ in jobs_of(tmp_path / "s" / FOLDER)]
    assert states == ["finished", "finished", "remaining"]
    again = Launcher(tmp_path)
    sweeper(tmp_path, again).sweep(["+sweep=s", "tokens=90"])
    assert again.launched[-1]["kind"] == "b"
    assert again.launched[-1]["rate"] == "0.1"


def test_a_trial_without_the_metric_decides_nothing(tmp_path: Path) -> None:
    trials: dict[tuple[str, ...], list[list[str]]] = {
        ("kind=a",): [["kind=a", "rate=0.1"], ["kind=a", "rate=0.2"]]
    }
    folder = tmp_path / "rates" / FOLDER
    for index, job in enumerate(trials["kind=a",]):
        write_status(folder, Job(overrides=tuple(job), state="finished", name=f"run{index}"))
        measured = {LOSS: 1.0} if index == 0 else {}
        write_record(empty_record(f"run{index}", metrics=measured), tmp_path / "rates" / f"run{index}")
    assert chosen(CHOICE, trials, folder) == {}


def test_a_recorded_trial_counts_and_a_recorded_job_is_not_launched(tmp_path: Path) -> None:
    """Everything but the first job has a record from another machine."""
    launcher = Launcher(tmp_path)
    made = sweeper(tmp_path, launcher)

    def foresee(config: Any) -> Foreseen:
        given = dict(config)
        work = Work(group=f"kind {given['kind']}", tokens=1000, weights=10)
        if "sweep_name" not in given and given.get("size") == "1":
            return Foreseen("x", work, None)
        name = "-".join(map(str, given.values())).replace("/", "_")
        loss = LOSSES[given["kind"], str(given["rate"])]
        path = write_record(empty_record(name, metrics={LOSS: loss}), tmp_path / "records" / name)
        return Foreseen(name, work, path)

    made.foresee = foresee
    made.sweep(["+sweep=s", "tokens=90"])
    assert [(job["size"], job["rate"]) for job in launcher.launched] == [("1", "0.2")]
    states = [state for state, _, _ in jobs_of(tmp_path / "s" / FOLDER)]
    assert states == ["finished", "recorded", "recorded"]
    plan = read_plan(tmp_path / "s" / FOLDER)
    assert plan.parallel == 2
    assert [work.group for work in plan.work if work] == ["kind a", "kind a", "kind b"]
