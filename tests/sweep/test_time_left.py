"""The time left, from the speed of each kind and width; and the seconds that interrupted attempts took."""

import time
from pathlib import Path

import pytest

from sparsity_lab.sweep.job_status import (
    FOLDER,
    Foreseen,
    Job,
    Plan,
    Work,
    at_work,
    job_file,
    read_job,
    write_plan,
    write_recorded,
    write_status,
)
from sparsity_lab.sweep.status_table import jobs_of, table
from sparsity_lab.sweep.time_left import Expected, Listed, groups, seconds_left

NARROW = Work(group="narrow", tokens=1000, weights=100)
WIDE = Work(group="wide", tokens=2000, weights=400)
JOBS = [(f"job={index}",) for index in range(5)]


def plan(*work: Work | None, parallel: int = 1) -> Plan:
    return Plan(jobs=tuple(JOBS[: len(work)]), command="c", work=work, parallel=parallel)


def done(index: int, seconds: float) -> tuple[str, Job, tuple[str, ...]]:
    return "finished", Job(overrides=JOBS[index], state="finished", worked=seconds), JOBS[index]


def waiting(index: int) -> tuple[str, None, tuple[str, ...]]:
    return "remaining", None, JOBS[index]


def test_a_job_takes_what_its_groups_median_says() -> None:
    jobs = [done(0, 10.0), done(1, 20.0), done(2, 1000.0), waiting(3)]
    assert Expected(jobs, plan(NARROW, NARROW, NARROW, NARROW)).seconds(JOBS[3]) == 20.0


def test_a_group_without_a_computed_job_goes_by_weights_and_tokens() -> None:
    jobs = [done(0, 10.0), waiting(1)]
    assert seconds_left(jobs, 0.0, plan(NARROW, WIDE)) == pytest.approx(10.0 * 2 * 4)
    found = groups(jobs, 0.0, plan(NARROW, WIDE))
    assert [(group.name, group.jobs, group.done) for group in found] == [("narrow", 1, 1), ("wide", 1, 0)]
    assert [group.tokens_per_second for group in found] == [100.0, None]
    assert [group.seconds for group in found] == [0.0, pytest.approx(80.0)]


def test_jobs_at_a_time_divide_the_time() -> None:
    jobs = [done(0, 10.0), waiting(1), waiting(2)]
    assert seconds_left(jobs, 0.0, plan(NARROW, NARROW, NARROW, parallel=2)) == 10.0
    assert seconds_left(jobs, 0.0, plan(None, None, None)) == 20.0  # by the mean of all


def test_an_interrupted_job_has_what_it_spent_behind_it() -> None:
    spent = Job(overrides=JOBS[1], state="interrupted", spent=4.0)
    jobs: Listed = [done(0, 10.0), ("interrupted", spent, JOBS[1])]
    assert seconds_left(jobs, 0.0, plan(NARROW, NARROW)) == 6.0


def test_nothing_computed_here_gives_no_estimate(tmp_path: Path) -> None:
    folder = tmp_path / "s" / FOLDER
    write_plan(folder, JOBS[:2], work=[NARROW, WIDE])
    write_recorded(folder, JOBS[0], Foreseen("n", NARROW, tmp_path / "record.json"))
    assert seconds_left(jobs_of(folder), 0.0, plan(NARROW, WIDE)) is None
    assert table(folder).splitlines()[-5:] == [
        "        jobs  done  tokens/s  hours of jobs left",
        "narrow     1     1         -                   -",
        "wide       1     0         -                   -",
        "",
        "2 jobs: 1 recorded, 1 remaining; time left unknown until a job is finished",
    ]


def test_a_record_counts_for_the_command_that_found_it(tmp_path: Path) -> None:
    folder, known = tmp_path / FOLDER, Foreseen("n", NARROW, tmp_path / "record.json")
    write_plan(folder, JOBS[:2])
    write_recorded(folder, JOBS[0], known)
    with at_work(folder, JOBS[1], "") as begun:
        write_status(folder, begun.model_copy(update={"state": "finished", "worked": 9.0}))
    write_recorded(folder, JOBS[1], known)
    assert [state for state, _, _ in jobs_of(folder)] == ["recorded", "finished"]
    assert read_job(job_file(folder, JOBS[1])).worked == 9.0
    write_plan(folder, JOBS[:2])
    assert [state for state, _, _ in jobs_of(folder)] == ["remaining", "finished"]


def test_seconds_of_interrupted_attempts_are_added_up(tmp_path: Path) -> None:
    folder, log = tmp_path / FOLDER, tmp_path / "job.log"
    with at_work(folder, JOBS[0], str(log)) as begun:
        write_status(folder, begun.model_copy(update={"state": "interrupted", "spent": 30.0}))
    with at_work(folder, JOBS[0], str(log)) as begun:
        assert begun.spent == 30.0
        write_status(folder, begun.model_copy(update={"started": time.time() - 50}))
        log.write_text("the last line\n")  # and then its process is killed
    with at_work(folder, JOBS[0], str(log)) as begun:
        assert begun.spent == pytest.approx(80.0, abs=5.0)
        write_status(folder, begun.model_copy(update={"state": "finished", "worked": 90.0}))
    with at_work(folder, JOBS[0], str(log)) as begun:
        assert (begun.spent, begun.worked) == (0.0, 90.0)
