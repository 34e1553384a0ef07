"""The status table of a sweep: state, seconds and overrides per job, counts per state, time left."""

import time
from collections import Counter
from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.shown import printable_lines
from sparsity_lab.sweep.job_status import (
    FOLDER,
    PLAN,
    Job,
    is_worked_on,
    job_file,
    read_plan,
    read_status,
)
from sparsity_lab.sweep.time_left import Group, Listed, groups, seconds_left

ORDER = ("finished", "reused", "recorded", "running", "failed", "interrupted", "remaining")


def jobs_of(folder: Path) -> Listed:
    """Return state, status (or None) and overrides of every job of the sweep's plan.

    Raises:
        UserError: the sweep does not exist, or its plan is unreadable.
    """
    if not folder.is_dir():
        root, name = folder.parents[1], folder.parent.name
        there = ", ".join(sorted(path.parent.name for path in root.glob(f"*/{FOLDER}"))) or "none"
        raise UserError(
            f"{name}: no such sweep in {root}; there: {there}. "
            f"One that has not been started: python -m sparsity_lab.run +sweep={name} -m"
        )
    plan, found = read_plan(folder), []
    for overrides in plan.jobs:
        path = job_file(folder, overrides)
        job = read_status(path)
        if job is None:
            state = "remaining"
        elif job.state in ("running", "finished", "reused") or job.command == plan.command:
            state = _state(path, job)
        else:
            state = "remaining"  # it failed under an earlier command and has not been retried yet
        found.append((state, job, overrides))
    return found


def earlier_jobs(folder: Path) -> Listed:
    """Return the jobs that only earlier commands of the sweep named, as `jobs_of` does."""
    planned = {job_file(folder, overrides) for overrides in read_plan(folder).jobs}
    others = [path for path in sorted(folder.glob("*.json")) if path.name != PLAN and path not in planned]
    jobs = [(path, job) for path in others if (job := read_status(path))]
    return [
        (_state(path, job), job, job.overrides)
        for path, job in sorted(jobs, key=lambda pair: pair[1].started)
    ]


def _state(path: Path, job: Job) -> str:
    """Return the state of a job that has begun."""
    if job.state != "running":
        return job.state
    return "running" if is_worked_on(path) else "interrupted"


def table(folder: Path) -> str:
    """Format one line per job, then the groups of jobs, the counts per state, and the time left."""
    jobs, earlier, plan, now = jobs_of(folder), earlier_jobs(folder), read_plan(folder), time.time()
    lines = _lines(earlier)
    if earlier:
        lines = ["of earlier commands:", *lines, "of the last command:"]
    lines += _lines(jobs)
    if len(found := groups(jobs, now, plan)) > 1:
        lines += ["", *_group_lines(found), ""]
    summary = _counts(jobs)
    if earlier:
        summary += f"; by earlier commands: {_counts(earlier)}"
    counts = Counter(state for state, _, _ in jobs)
    left = seconds_left(jobs, now, plan)
    if counts["running"] + counts["remaining"] + counts["interrupted"] == 0:
        ending = ""
    elif left is None:
        ending = "; time left unknown until a job is finished"
    else:
        ending = f"; {_duration(left)} left" + ("" if counts["running"] else " when it is started again")
    return printable_lines("\n".join([*lines, f"{len(jobs)} jobs: {summary or 'none'}{ending}"]))


def table_with_trials(folder: Path) -> str:
    """Format the trials that come before the jobs (`sweep.choice`), if there are any, and then the jobs."""
    before = read_plan(folder).before if folder.is_dir() else ""
    trials = folder.parents[1] / before / FOLDER
    if not before or not trials.is_dir():
        return table(folder)
    return f"trials, which come first ({before}):\n{table(trials)}\n\n{folder.parent.name}:\n{table(folder)}"


def _group_lines(found: list[Group]) -> list[str]:
    """One line for each group of jobs. The hours left are those of one job after another."""
    width = max(len(group.name) for group in found)
    lines = [f"{'':{width}}  jobs  done  tokens/s  hours of jobs left"]
    for group in found:
        speed = "-" if group.tokens_per_second is None else f"{group.tokens_per_second:,.0f}"
        hours = "-" if group.seconds is None else f"{group.seconds / 3600:.1f}"
        lines.append(f"{group.name:{width}}  {group.jobs:4}  {group.done:4}  {speed:>8}  {hours:>18}")
    return lines


def _lines(jobs: Listed) -> list[str]:
    lines = []
    for state, job, overrides in jobs:
        shown = [override for override in overrides if not override.startswith(("+sweep=", "sweep="))]
        took = f"{job.worked:6.0f} s" if job and job.worked else " " * 8
        lines.append(f"{state:11} {took}  {' '.join(shown)}")
        if job and state == "failed":
            lines += [f"{'':22}{line}" for line in (*job.error.splitlines()[:3], f"log: {job.log}")]
        if job and state == "running" and (progress := last_line(job.log)):
            lines.append(f"{'':22}{progress}")
    return lines


def _counts(jobs: Listed) -> str:
    counts = Counter(state for state, _, _ in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])


def last_line(log: str) -> str:
    """Return the last line of a log file, empty if there is none."""
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
