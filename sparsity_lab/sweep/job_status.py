"""The jobs of a sweep as files: what was asked for, and how far each is. No torch, no trust in clocks.

Beside the runs of a sweep, `runs/SWEEP/.jobs/` holds `plan.json`, the overrides of every job of the last
command, and `ID.json` for each job that was begun. Who works on a job holds its lock, which the system
frees when the process dies, on whatever machine: so a job that says "running" without one was interrupted.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import locked, read_json, write_json
from sparsity_lab.core.hashing import content_hash

FOLDER, PLAN = ".jobs", "plan.json"
State = Literal["running", "finished", "reused", "failed", "interrupted"]


class Plan(Config):
    """What one command asks for: the overrides of each job; `command` tells it from others."""

    jobs: tuple[tuple[str, ...], ...]
    command: str


class Job(Config):
    """One job: its overrides, its state, its run's name, its log, and what went wrong.

    `command` is that of the plan it was begun under. `worked`: seconds that it took when it was computed; a
    reused one keeps them. `memory`: largest resident size of its process so far, in bytes.
    """

    overrides: tuple[str, ...]
    state: State
    name: str = ""
    log: str = ""
    error: str = ""
    started: float = 0.0
    worked: float = 0.0
    memory: int = 0
    command: str = ""


def folder_of_jobs(root: Path, sweep: str | None) -> Path:
    """Where a sweep keeps the status of its jobs."""
    return root / (sweep or "single") / FOLDER


def job_file(folder: Path, overrides: Sequence[str]) -> Path:
    """The file of the job that `overrides` make."""
    return folder / f"{content_hash(sorted(overrides))}.json"


def write_plan(folder: Path, jobs: Sequence[Sequence[str]], command: str = "") -> None:
    """Say what a command, a new one unless it is named, is about to do."""
    plan = Plan(jobs=tuple(tuple(job) for job in jobs), command=command or secrets.token_hex(4))
    with locked(folder / PLAN):
        write_json(folder / PLAN, plan)


def read_plan(folder: Path) -> Plan:
    """The last command's plan; without one (single runs) every job that was ever begun.

    Raises:
        UserError: it is there, but not readable.
    """
    path = folder / PLAN
    if path.exists():
        return validate(Plan, read_json(path), str(path))
    begun = [read_job(path) for path in sorted(folder.glob("*.json"))]
    return Plan(jobs=tuple(job.overrides for job in begun), command="")


def read_job(path: Path) -> Job:
    """Read the job in a file.

    Raises:
        UserError: it is missing, or not readable.
    """
    return validate(Job, read_json(path), str(path))


@contextmanager
def at_work(folder: Path, overrides: Sequence[str], log_file: str) -> Iterator[Job]:
    """Hold the job's lock for a block; yields what is known of it, "running" from now on."""
    path = job_file(folder, overrides)
    with locked(path):
        before = read_status(path)
        job = Job(
            overrides=tuple(overrides),
            state="running",
            log=log_file,
            started=time.time(),
            worked=before.worked if before else 0.0,
            command=read_plan(folder).command if (folder / PLAN).exists() else "",
        )
        write_json(path, job)
        yield job


def read_status(path: Path) -> Job | None:
    """The job in a file; None if it is missing or damaged, since the same command writes it again."""
    try:
        return read_job(path)
    except UserError:
        return None


def write_status(folder: Path, job: Job) -> None:
    """Write how a job ended."""
    write_json(job_file(folder, job.overrides), job)


def is_worked_on(path: Path) -> bool:
    """Whether some process holds the job's lock."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
