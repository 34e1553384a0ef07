"""The table of a sweep's jobs, from their files alone: every state, time left, no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab import status
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.names import SINGLE
from sparsity_lab.sweep.job_status import (
    FOLDER,
    at_work,
    is_worked_on,
    job_file,
    read_job,
    read_plan,
    write_plan,
    write_status,
)
from sparsity_lab.sweep.status_table import jobs_of, seconds_left, table

SEEDS = [[f"seed={seed}", "+sweep=s"] for seed in range(6)]


def end(folder: Path, index: int, state: str, **values: object) -> None:
    """Work on a job for a moment, and end so."""
    with at_work(folder, SEEDS[index], "run.log") as begun:
        write_status(folder, begun.model_copy(update={"state": state, **values}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of which one job is finished, one reused, one failed, one interrupted; two are to come."""
    folder = tmp_path / "s" / FOLDER
    write_plan(folder, SEEDS)
    end(folder, 0, "finished", worked=100.0)
    end(folder, 1, "reused", worked=50.0)
    end(folder, 2, "failed", error="no such thing\nreally", log="there.log")
    with at_work(folder, SEEDS[3], "run.log"):
        pass  # its process is gone, and its file says "running"
    return folder


def test_jobs_of_earlier_commands_stay_in_the_table(folder: Path) -> None:
    write_plan(folder, [["seed=7", "+sweep=s"]])
    with at_work(folder, ["seed=7", "+sweep=s"], "") as begun:
        write_status(folder, begun.model_copy(update={"state": "finished", "worked": 9.0}))
    lines = table(folder).splitlines()
    assert lines[0] == "of earlier commands:"
    last = lines.index("of the last command:")
    shown = [line.split()[0] + " " + line.split()[-1] for line in lines[1:last] if not line.startswith(" ")]
    assert shown == ["finished seed=0", "reused seed=1", "failed seed=2", "interrupted seed=3"]
    assert lines[last + 1].endswith("seed=7")
    assert lines[-1] == (
        "1 jobs: 1 finished; by earlier commands: 1 finished, 1 reused, 1 failed, 1 interrupted"
    )


def states(folder: Path) -> list[str]:
    return [state for state, _, _ in jobs_of(folder)]


def test_every_state_is_told(folder: Path, tmp_path: Path) -> None:
    assert states(folder) == ["finished", "reused", "failed", "interrupted", "remaining", "remaining"]
    log = tmp_path / "4.log"
    log.write_text("first\n08:00:00 step 3 of 9\n")
    with at_work(folder, SEEDS[4], str(log)):
        assert is_worked_on(job_file(folder, SEEDS[4]))
        shown = table(folder)
        assert "running               seed=4\n                      08:00:00 step 3 of 9\n" in shown
        assert "failed                seed=2\n                      no such thing\n" in shown
        assert "log: there.log" in shown
        assert "+sweep" not in shown
        assert shown.splitlines()[-1].startswith(
            "6 jobs: 1 finished, 1 reused, 1 running, 1 failed, 1 interrupted, 1 remaining; "
        )
    assert states(folder)[4] == "interrupted"


def test_time_left_is_the_mean_of_what_was_computed(folder: Path) -> None:
    assert seconds_left(jobs_of(folder), 0.0) == 3 * 75.0
    with at_work(folder, SEEDS[4], "run.log") as one, at_work(folder, SEEDS[5], "run.log"):
        assert seconds_left(jobs_of(folder), one.started) == pytest.approx((75 + 75 + 75) / 2, abs=1)
        assert seconds_left(jobs_of(folder), one.started - 1e6) == (75 + 75 + 75) / 2  # the clock went back
        assert seconds_left(jobs_of(folder), one.started + 1e6) == 75 / 2
    assert table(folder).endswith("; 4 min left when it is started again")


def test_a_new_command_has_its_own_failures_and_keeps_what_is_finished(folder: Path) -> None:
    write_plan(folder, SEEDS[:3])
    assert states(folder) == ["finished", "reused", "remaining"]
    end(folder, 2, "failed")
    assert states(folder) == ["finished", "reused", "failed"]


def test_nothing_finished_means_no_estimate(tmp_path: Path) -> None:
    folder = tmp_path / SINGLE / FOLDER
    write_plan(folder, SEEDS[:1])
    assert table(folder).splitlines()[-1] == "1 jobs: 1 remaining; time left unknown until a job is finished"
    end(folder, 0, "finished", worked=1.0)
    assert table(folder).splitlines()[-1] == "1 jobs: 1 finished"


def test_single_runs_are_listed_without_a_plan(tmp_path: Path) -> None:
    folder = tmp_path / SINGLE / FOLDER
    end(folder, 1, "finished", worked=2.0)
    assert [job.overrides for _, job, _ in jobs_of(folder) if job] == [tuple(SEEDS[1])]
    assert read_plan(folder).command == ""


def test_a_damaged_file_of_a_point_costs_its_history_alone(folder: Path) -> None:
    path = job_file(folder, SEEDS[0])
    path.write_text("{")
    assert states(folder)[0] == "remaining"
    end(folder, 0, "finished", worked=3.0)
    assert read_job(path).worked == 3.0


def test_an_unknown_sweep_names_those_there_are(folder: Path) -> None:
    root = folder.parents[1]
    with pytest.raises(UserError) as refused:
        table(root / "t" / FOLDER)
    assert str(refused.value) == (
        f"t: no such sweep in {root}; there: s. "
        "One that has not been started: python -m sparsity_lab.run +sweep=t -m"
    )


def test_the_command_needs_no_torch_and_its_status_tells(folder: Path) -> None:
    root = Path(status.__file__).parents[1]
    command = (
        "import sys; from sparsity_lab import status; code = status.main(); "
        "assert not {'torch', 'lightning', 'hydra'} & set(sys.modules); sys.exit(code)"
    )
    for sweep, expected in (("s", 1), ("t", 2)):
        arguments = [sys.executable, "-c", command, sweep, "--root", str(folder.parents[1])]
        ended = subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=False)
        assert ended.returncode == expected, ended.stderr
        assert ended.stdout == (table(folder) + "\n" if sweep == "s" else "")
