"""Choose a value by trials before a sweep's jobs: `hydra.sweeper.choice`.

1. The jobs that agree in the overrides `alike` form a group, which shares one value of `key`.
2. The first job of each group is tried with each of `values`, under the changes `overrides`: another
   `sweep_name`, other seeds, fewer tokens. A trial is an ordinary job. It has a state, a log and a record.
3. Each job gets the value whose trials in its group have the best mean `metric`, as one more override.

All trials run before all jobs. With `groups_at_a_time`, the trials of so many groups run, then the jobs up to
the first one of another group, and so on: an interrupted sweep then has finished jobs, not only trials.

The trials depend on the config alone, so an interrupted sweep chooses the same values when it is resumed.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import read_record
from sparsity_lab.sweep.job_status import DONE, job_file, read_status

log = logging.getLogger(__name__)

Group = tuple[str, ...]  # the overrides that its jobs agree in, in the order of `alike`


@dataclass
class Choice:
    """`key` gets one of `values`, by the `metric` of trials; `overrides` are the trials' changes to a job.

    `groups_at_a_time` groups are tried before their jobs run; None: all.
    """

    key: str
    values: list[Any]
    overrides: dict[str, Any]
    alike: list[str] = field(default_factory=list)
    metric: str = metrics.VALIDATION_LOSS.name
    groups_at_a_time: int | None = None

    @property
    def sweep_name(self) -> Any:
        """The sweep that the trials belong to."""
        return self.overrides.get("sweep_name")


def check(choice: Choice, own_name: Any) -> None:
    """Check the settings before anything is written.

    Raises:
        UserError: a setting is missing, unknown or not allowed.
    """
    where = "hydra.sweeper.choice"
    if not choice.values:
        raise UserError(f"{where}.values: []: allowed: one or more values of {choice.key}")
    by_name = {metric.name: metric for metric in metrics.SUMMARY}
    if choice.metric not in by_name or by_name[choice.metric].better == "neither":
        allowed = ", ".join(name for name, metric in by_name.items() if metric.better != "neither")
        raise UserError(f"{where}.metric: {choice.metric}: allowed: {allowed}")
    if choice.groups_at_a_time is not None and choice.groups_at_a_time < 1:
        raise UserError(f"{where}.groups_at_a_time: {choice.groups_at_a_time}: allowed: null, or 1 or more")
    if choice.sweep_name in (None, own_name):
        raise UserError(
            f"{where}.overrides.sweep_name: {choice.sweep_name}: the trials need a sweep name of their own"
        )


def group_of(choice: Choice, job: Sequence[str]) -> Group:
    """Return the group of a job."""
    given = _by_key(job)
    return tuple(f"{key}={given[key]}" for key in choice.alike if key in given)


def trial_lines(choice: Choice, jobs: Sequence[Sequence[str]]) -> dict[Group, list[str]]:
    """Return the overrides of each group's trials. Values may be lists of choices, in Hydra's syntax.

    A job that gives `key` itself needs no trials.
    """
    found: dict[Group, list[str]] = {}
    changed = {choice.key, *choice.overrides}
    for job in jobs:
        if choice.key in _by_key(job) or group_of(choice, job) in found:
            continue
        own = [override for override in job if _key(override) not in changed]
        changes = [f"{key}={value}" for key, value in choice.overrides.items()]
        values = f"{choice.key}={','.join(map(str, choice.values))}"
        found[group_of(choice, job)] = [*own, *changes, values]
    return found


def portions(
    choice: Choice, jobs: Sequence[Sequence[str]], groups: Sequence[Group]
) -> list[tuple[list[Group], list[int]]]:
    """Return the groups tried together, each time with the indices of the jobs that run after their trials.

    These are the jobs before the first one of a group that is tried later.
    """
    size = choice.groups_at_a_time or len(groups)
    cuts = [groups[start : start + size] for start in range(0, len(groups), size)]
    begins = [0]
    for later in cuts[1:]:
        begins.append(next(i for i, job in enumerate(jobs) if _is_tried(choice, job, later)))
    ends = [*begins[1:], len(jobs)]
    return [(list(cut), list(range(begin, end))) for cut, begin, end in zip(cuts, begins, ends, strict=True)]


def _is_tried(choice: Choice, job: Sequence[str], groups: Sequence[Group]) -> bool:
    return choice.key not in _by_key(job) and group_of(choice, job) in groups


def chosen(choice: Choice, trials: Mapping[Group, Sequence[Sequence[str]]], folder: Path) -> dict[Group, str]:
    """Return the best value for each group all of whose trials are done, as an override.

    `folder` holds the trials' status files.
    """
    best: dict[Group, str] = {}
    for group, jobs in trials.items():
        measured: dict[str, list[float]] = {}
        for job in jobs:
            value = _measured(choice, job, folder)
            if value is not None:
                measured.setdefault(f"{choice.key}={_by_key(job)[choice.key]}", []).append(value)
        if sum(map(len, measured.values())) < len(jobs):
            continue
        means = {override: mean(values) for override, values in measured.items()}
        higher = next(one for one in metrics.SUMMARY if one.name == choice.metric).better == "higher"
        best[group] = (max if higher else min)(means, key=means.__getitem__)
        told = ", ".join(f"{override.partition('=')[2]}: {value:.4f}" for override, value in means.items())
        log.info("%s for %s (%s: %s)", best[group], " ".join(group) or "all", choice.metric, told)
    return best


def with_choice(choice: Choice, job: Sequence[str], best: Mapping[Group, str]) -> list[str] | None:
    """Return the job with the value chosen for its group; None if none has been chosen."""
    if choice.key in _by_key(job):
        return list(job)
    override = best.get(group_of(choice, job))
    return None if override is None else [*job, override]


def _measured(choice: Choice, job: Sequence[str], folder: Path) -> float | None:
    """Return a trial's metric; None if the trial is not done or has not measured it."""
    status = read_status(job_file(folder, job))
    if status is None or status.state not in DONE:
        return None
    path = Path(status.record) if status.record else folder.parent / status.name
    return read_record(path).metrics.get(choice.metric)


def _by_key(job: Sequence[str]) -> dict[str, str]:
    return {_key(override): override.partition("=")[2] for override in job}


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")
