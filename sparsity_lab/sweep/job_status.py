"""Status files of a sweep's jobs. This module neither imports torch nor relies on clocks.

`runs/SWEEP/.jobs/` holds `plan.json`, the overrides of every job of the last command, and `ID.json` for each
job that has started. A process holds the lock of the job it works on. The system releases the lock when the
process dies, on any machine. A job in state "running" whose lock is free was therefore interrupted. A job in
state "recorded" was not run here: another machine has left its record (`results.recorded`).
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock
from pydantic import PositiveInt

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import acquired, locked, read_json, write_json
from sparsity_lab.core.hashing import content_hash

FOLDER, PLAN = ".jobs", "plan.json"
State = Literal["running", "finished", "reused", "recorded", "failed", "interrupted"]
DONE = ("finished", "reused", "recorded")


class Work(Config):
    """What a job has to do: train a model of `weights` weights on `tokens` tokens.

    Jobs of one `group` (kind, width and sparsity method) train at about the same speed.
    """

    group: str
    tokens: int
    weights: int


class Foreseen(NamedTuple):
    """What is known of a job before it runs; `record` is the file of its record, if there is one already."""

    name: str
    work: Work | None
    record: Path | None


class Plan(Config):
    """The jobs of one command, as overrides; `command` identifies the command.

    `work` has an entry for each job, if it is known. `parallel` jobs run at a time. `before` names the sweep
    of the trials that come first (`sweep.choice`); empty if there are none.
    """

    jobs: tuple[tuple[str, ...], ...]
    command: str
    work: tuple[Work | None, ...] = ()
    parallel: PositiveInt = 1
    before: str = ""


class Job(Config):
    """One job: its overrides, state, run name, log file and error.

    `command` identifies the plan under which the job started. `worked` is the seconds its computation took,
    interrupted attempts included; a reused job keeps them. `spent` is the seconds of the interrupted attempts
    before this one. `memory` is the peak resident size of its process in bytes. `record` is the record of a
    recorded job.
    """

    overrides: tuple[str, ...]
    state: State
    name: str = ""
    log: str = ""
    error: str = ""
    started: float = 0.0
    worked: float = 0.0
    spent: float = 0.0
    memory: int = 0
    command: str = ""
    record: str = ""


def job_file(folder: Path, overrides: Sequence[str]) -> Path:
    """Return the status file of the job with these overrides."""
    return folder / f"{content_hash(sorted(overrides))}.json"


def write_plan(
    folder: Path,
    jobs: Sequence[Sequence[str]],
    command: str = "",
    *,
    work: Sequence[Work | None] = (),
    parallel: int = 1,
    before: str = "",
) -> None:
    """Write the plan of a command; an empty `command` gets a new id."""
    plan = Plan(
        jobs=tuple(tuple(job) for job in jobs),
        command=command or secrets.token_hex(4),
        work=tuple(work),
        parallel=parallel,
        before=before,
    )
    with locked(folder / PLAN):
        write_json(folder / PLAN, plan)


def read_plan(folder: Path) -> Plan:
    """Read the last command's plan. Without a plan (single runs), return every job that ever started.

    Raises:
        UserError: the plan is unreadable.
    """
    path = folder / PLAN
    if path.exists():
        return validate(Plan, read_json(path), str(path))
    begun = [read_job(path) for path in sorted(folder.glob("*.json"))]
    return Plan(jobs=tuple(job.overrides for job in begun), command="")


def read_job(path: Path) -> Job:
    """Read a job's status file.

    Raises:
        UserError: the file is missing or unreadable.
    """
    return validate(Job, read_json(path), str(path))


@contextmanager
def at_work(folder: Path, overrides: Sequence[str], log_file: str) -> Iterator[Job]:
    """Hold the job's lock inside the block, mark the job as "running" and yield it."""
    path = job_file(folder, overrides)
    with locked(path):
        before = read_status(path)
        job = Job(
            overrides=tuple(overrides),
            state="running",
            log=log_file,
            started=time.time(),
            worked=before.worked if before else 0.0,
            spent=_spent(before),
            command=read_plan(folder).command if (folder / PLAN).exists() else "",
        )
        write_json(path, job)
        yield job


def _spent(before: Job | None) -> float:
    """Return the seconds of a job's interrupted attempts; of a killed one, until the last line of its log."""
    if before is None or before.state not in ("running", "interrupted"):
        return 0.0
    if before.state == "interrupted":
        return before.spent
    try:
        return before.spent + max(0.0, Path(before.log).stat().st_mtime - before.started)
    except OSError:
        return before.spent


def read_status(path: Path) -> Job | None:
    """Read a status file; None if missing or damaged, since repeating the command rewrites it."""
    try:
        return read_job(path)
    except UserError:
        return None


def write_status(folder: Path, job: Job) -> None:
    """Write a job's final state."""
    write_json(job_file(folder, job.overrides), job)


def write_recorded(folder: Path, overrides: Sequence[str], known: Foreseen) -> None:
    """Mark a job as done by its record, unless it was finished here."""
    path = job_file(folder, overrides)
    with locked(path):
        before = read_status(path)
        if before is None or before.state not in ("finished", "reused"):
            job = Job(
                overrides=tuple(overrides),
                state="recorded",
                name=known.name,
                command=read_plan(folder).command,
                record=str(known.record),
            )
            write_json(path, job)


def is_worked_on(path: Path) -> bool:
    """Return whether some process holds the job's lock."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    if not acquired(lock):
        return True
    lock.release()
    return False
