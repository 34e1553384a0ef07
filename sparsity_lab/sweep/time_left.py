"""Estimate the time that a sweep's jobs still take, from those that are done.

1. Jobs of one group (kind, width and method) have one speed: the median of their tokens per second. A job's
   time counts whole, circuits included.
2. A group without a computed job is assumed to have the speed of the group nearest in weights, divided by the
   ratio of their weights.
3. A job whose work is not known is assumed to take the mean time of all computed jobs.
"""

from dataclasses import dataclass
from math import log
from statistics import mean, median

from sparsity_lab.sweep.job_status import DONE, Job, Plan, Work

Listed = list[tuple[str, Job | None, tuple[str, ...]]]  # state, status and overrides of each job


@dataclass(frozen=True)
class Group:
    """The jobs of one group: how many there are, and how many are done.

    `tokens_per_second` is None if none of them was computed here. `seconds` is the work left, in seconds of
    one job after another; None if no job of the sweep was computed here.
    """

    name: str
    jobs: int
    done: int
    tokens_per_second: float | None
    seconds: float | None


class Expected:
    """How long the jobs of a sweep are expected to take."""

    def __init__(self, jobs: Listed, plan: Plan | None = None) -> None:
        planned = zip(plan.jobs, plan.work, strict=False) if plan else ()
        self.work = {overrides: one for overrides, one in planned if one is not None}
        computed = [(job.worked, overrides) for _, job, overrides in jobs if job and job.worked > 0]
        self.mean = mean(seconds for seconds, _ in computed) if computed else None
        found: dict[str, list[float]] = {}
        for seconds, overrides in computed:
            if overrides in self.work:
                found.setdefault(self.work[overrides].group, []).append(self.work[overrides].tokens / seconds)
        self.speeds = {group: median(values) for group, values in found.items()}
        self._weights = {one.group: one.weights for one in self.work.values() if one.group in found}

    def seconds(self, overrides: tuple[str, ...]) -> float | None:
        """Return the seconds of the whole job; None if no job has been computed."""
        work = self.work.get(overrides)
        if work is None or not self.speeds:
            return self.mean
        return work.tokens / self._speed(work)

    def left(self, state: str, job: Job | None, overrides: tuple[str, ...], now: float) -> float | None:
        """Return the seconds until a job is done; 0 for one that is done or has failed."""
        if state in (*DONE, "failed"):
            return 0.0
        whole = self.seconds(overrides)
        if whole is None or job is None or state not in ("running", "interrupted"):
            return whole
        this_attempt = max(0.0, now - job.started) if state == "running" else 0.0
        return max(0.0, whole - job.spent - this_attempt)

    def _speed(self, work: Work) -> float:
        if work.group in self.speeds:
            return self.speeds[work.group]
        nearest = min(self._weights, key=lambda group: abs(log(self._weights[group] / work.weights)))
        return self.speeds[nearest] * self._weights[nearest] / work.weights


def seconds_left(jobs: Listed, now: float, plan: Plan | None = None) -> float | None:
    """Return the seconds until all jobs are done; None if no job has been computed.

    As many jobs are assumed to run at a time as do now, or as the plan says if none does.
    """
    expected = Expected(jobs, plan)
    left = [expected.left(*entry, now) for entry in jobs]
    known = [seconds for seconds in left if seconds is not None]
    if expected.mean is None:
        return None
    running = sum(state == "running" for state, _, _ in jobs)
    return sum(known) / (running or (plan.parallel if plan else 1))


def groups(jobs: Listed, now: float, plan: Plan) -> list[Group]:
    """Return the groups of the plan's jobs, in the plan's order."""
    expected = Expected(jobs, plan)
    found = []
    for name in dict.fromkeys(one.group for one in expected.work.values()):
        members = [entry for entry in jobs if (one := expected.work.get(entry[2])) and one.group == name]
        left = [expected.left(*entry, now) for entry in members]
        done = sum(state in DONE for state, _, _ in members)
        seconds = None if expected.mean is None else sum(one for one in left if one is not None)
        found.append(Group(name, len(members), done, expected.speeds.get(name), seconds))
    return found
