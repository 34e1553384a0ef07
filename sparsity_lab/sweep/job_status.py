"""The points of a sweep as files: what was asked for, and how far each is. No torch, no trust in clocks.

Beside the runs of a sweep, `runs/SWEEP/.points/` holds `plan.json`, the overrides of every point of the last
command, and `ID.json` for each point that was begun. Who works on a point holds its lock, which the system
frees when the process dies, on whatever machine: so a point that says "running" without one was interrupted.
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

FOLDER, PLAN = ".points", "plan.json"
State = Literal["running", "finished", "reused", "failed", "interrupted"]


class Plan(Config):
    """What one command asks for: the overrides of each point; `command` tells it from others."""

    points: tuple[tuple[str, ...], ...]
    command: str


class Point(Config):
    """One point: its overrides, its state, its run's name, its log, and what went wrong.

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


def folder_of_points(root: Path, sweep: str | None) -> Path:
    """Where a sweep's points are told of."""
    return root / (sweep or "single") / FOLDER


def point_file(folder: Path, overrides: Sequence[str]) -> Path:
    """The file of the point that `overrides` make."""
    return folder / f"{content_hash(sorted(overrides))}.json"


def write_plan(folder: Path, points: Sequence[Sequence[str]], command: str = "") -> None:
    """Say what a command, a new one unless it is named, is about to do."""
    plan = Plan(points=tuple(tuple(point) for point in points), command=command or secrets.token_hex(4))
    with locked(folder / PLAN):
        write_json(folder / PLAN, plan)


def read_plan(folder: Path) -> Plan:
    """The last command's plan; without one (single runs) every point that was ever begun.

    Raises:
        UserError: it is there, but not readable.
    """
    path = folder / PLAN
    if path.exists():
        return validate(Plan, read_json(path), str(path))
    begun = [read_point(path) for path in sorted(folder.glob("*.json"))]
    return Plan(points=tuple(point.overrides for point in begun), command="")


def read_point(path: Path) -> Point:
    """A point's file.

    Raises:
        UserError: it is missing, or not readable.
    """
    return validate(Point, read_json(path), str(path))


@contextmanager
def at_work(folder: Path, overrides: Sequence[str], log_file: str) -> Iterator[Point]:
    """Hold the point's lock for a block; yields what is known of it, "running" from now on."""
    path = point_file(folder, overrides)
    with locked(path):
        before = known(path)
        point = Point(
            overrides=tuple(overrides),
            state="running",
            log=log_file,
            started=time.time(),
            worked=before.worked if before else 0.0,
            command=read_plan(folder).command if (folder / PLAN).exists() else "",
        )
        write_json(path, point)
        yield point


def known(path: Path) -> Point | None:
    """What a point's file tells; nothing if it is missing, or damaged: the same command writes it again."""
    try:
        return read_point(path)
    except UserError:
        return None


def tell(folder: Path, point: Point) -> None:
    """Write how a point ended."""
    write_json(point_file(folder, point.overrides), point)


def is_worked_on(path: Path) -> bool:
    """Whether some process holds the point's lock."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
