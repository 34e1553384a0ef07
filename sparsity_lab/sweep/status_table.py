"""The table of a sweep: state, seconds and overrides of each point, how many there are of each, time left."""

import time
from collections import Counter
from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.sweep.job_status import FOLDER, Point, is_worked_on, known, point_file, read_plan

ORDER = ("finished", "reused", "running", "failed", "interrupted", "remaining")


def points_of(folder: Path) -> list[tuple[str, Point | None, tuple[str, ...]]]:
    """State, file's content if any, and overrides of every point of the sweep's plan.

    Raises:
        UserError: nothing is known of such a sweep, or its plan is not readable.
    """
    if not folder.is_dir():
        there = sorted(path.parent.name for path in folder.parents[1].glob(f"*/{FOLDER}"))
        raise UserError(f"{folder.parent.name}: no such sweep; there: {', '.join(there) or 'none'}")
    plan, found = read_plan(folder), []
    for overrides in plan.points:
        path = point_file(folder, overrides)
        point = known(path)
        if point is None:
            state = "remaining"
        elif point.state == "running":
            state = "running" if is_worked_on(path) else "interrupted"
        elif point.state in ("finished", "reused") or point.command == plan.command:
            state = point.state
        else:
            state = "remaining"  # it failed under an earlier command, and this one has not come to it
        found.append((state, point, overrides))
    return found


def seconds_left(points: list[tuple[str, Point | None, tuple[str, ...]]], now: float) -> float | None:
    """Time left, if those to come take as long as the mean of those that were computed; None: none yet was.

    As many points run side by side as do now.
    """
    took = [point.worked for _, point, _ in points if point and point.worked > 0]
    if not took:
        return None
    mean = sum(took) / len(took)
    running = [point for state, point, _ in points if state == "running" and point]
    waiting = sum(state in ("remaining", "interrupted") for state, _, _ in points)
    under_way = sum(max(0.0, mean - max(0.0, now - point.started)) for point in running)
    return (waiting * mean + under_way) / max(1, len(running))


def table(folder: Path) -> str:
    """The points, a line each, and how many there are of each state, with the time left."""
    points = points_of(folder)
    lines = []
    for state, point, overrides in points:
        shown = [override for override in overrides if not override.startswith(("+sweep=", "sweep="))]
        took = f"{point.worked:6.0f} s" if point and point.worked else " " * 8
        lines.append(f"{state:11} {took}  {' '.join(shown)}")
        if point and state == "failed":
            lines += [f"{'':22}{line}" for line in (*point.error.splitlines()[:3], f"log: {point.log}")]
        if point and state == "running" and (said := last_line(point.log)):
            lines.append(f"{'':22}{said}")
    counts = Counter(state for state, _, _ in points)
    told = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    left = seconds_left(points, time.time())
    if counts["running"] + counts["remaining"] + counts["interrupted"] == 0:
        ending = ""
    elif left is None:
        ending = "; time left unknown until a point is finished"
    else:
        ending = f"; {_duration(left)} left" + ("" if counts["running"] else " when it is started again")
    return "\n".join([*lines, f"{len(points)} points: {told or 'none'}{ending}"])


def last_line(log: str) -> str:
    """The last line of a log file, empty if there is none."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 2000))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
