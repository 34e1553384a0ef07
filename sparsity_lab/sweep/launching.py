"""Plan the jobs of a sweep and launch them by Hydra's launcher; go on where a killed job ends the launch."""

import logging
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher

from sparsity_lab.sweep.job_status import (
    Foreseen,
    job_file,
    read_job,
    write_plan,
    write_recorded,
    write_status,
)
from sparsity_lab.sweep.status_table import jobs_of

log = logging.getLogger(__name__)


def plan_and_launch(
    launcher: Launcher,
    jobs: list[list[str]],
    ready: Sequence[int],
    known: Sequence[Foreseen | None],
    folder: Path,
    before: str = "",
) -> None:
    """Write the plan of all jobs, mark those that have a record, and launch the ready ones of the others.

    `known` has an entry for each job. `ready` are indices of jobs; the other jobs are planned only.
    """
    n_jobs = getattr(launcher, "joblib", {}).get("n_jobs", 1)
    write_plan(
        folder,
        jobs,
        work=[one.work if one else None for one in known],
        parallel=n_jobs if isinstance(n_jobs, int) and n_jobs > 0 else 1,
        before=before,
    )
    recorded = set()
    for index, (job, one) in enumerate(zip(jobs, known, strict=True)):
        if one is not None and one.record is not None:
            write_recorded(folder, job, one)
            recorded.add(index)
    if recorded:
        log.info("%d of %d jobs are done by their records", len(recorded), len(jobs))
    launch(launcher, [jobs[index] for index in ready if index not in recorded], folder)


def launch(launcher: Launcher, jobs: list[list[str]], folder: Path, first: int = 0) -> None:
    """Launch all jobs, numbered from `first`. If a killed worker breaks the pool, launch the rest again.

    Each job that was running at that moment is first retried alone. A job that kills its worker again is
    marked as failed.
    """
    while jobs:
        try:
            launcher.launch(jobs, initial_job_idx=first)
            return
        except BrokenExecutor as error:
            log.warning(
                "a worker was killed (%s); continuing with the other jobs", str(error).splitlines()[0]
            )
        except RuntimeError as error:
            wait_for_others(launcher, error)
            return
        first += len(jobs)
        states = {overrides: state for state, _, overrides in jobs_of(folder)}
        suspects = [job for job in jobs if states[tuple(job)] == "interrupted"]
        for suspect in suspects:
            try:
                launcher.launch([suspect], initial_job_idx=first)
            except BrokenExecutor:
                job = read_job(job_file(folder, suspect))
                killed = "its process was killed twice, perhaps by the out-of-memory killer"
                write_status(folder, job.model_copy(update={"state": "failed", "error": killed}))
                log.error("failed: %s\n%s", " ".join(suspect), killed)
            first += 1
        jobs = [job for job in jobs if states[tuple(job)] == "remaining"]


def wait_for_others(launcher: Any, error: RuntimeError) -> None:
    """Wait for the other jobs of the array after submitit has given up at the first killed one.

    Raises:
        RuntimeError: `error`, if it is not submitit's.
    """
    if type(launcher).__name__ != "SlurmLauncher" or type(error).__name__ != "UncompletedJobError":
        raise error
    from submitit import SlurmJob
    from submitit.core.utils import JobPaths

    log.warning("a job was killed (%s); waiting for the others", str(error).splitlines()[0])
    folder = launcher.params["submitit_folder"]
    jobs = [path.name for path in JobPaths.get_first_id_independent_folder(folder).glob("*_*/")]
    for job in jobs:
        SlurmJob(folder, job).wait()
