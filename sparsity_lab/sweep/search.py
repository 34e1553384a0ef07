"""Hyperparameter search on top of the grids: `hydra.sweeper.search`.

Each job of the grids becomes a study with `n_trials` finished trials. Studies advance side by side, `batch`
trials of each at a time. A trial is an ordinary job: it has a state, a log and a record, and shares stages.
The objectives are metrics of its record. To resume, repeat the command: interrupted trials run first, then
new ones until each study has enough. The search replaces the paper's CARBS (Gao et al. 2025, App. A.5).
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import locked, write_json
from sparsity_lab.core.names import destination
from sparsity_lab.core.signals import received
from sparsity_lab.sweep.job_status import FOLDER, job_file, read_status, write_plan

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sparsity_lab.sweep.optuna_study import Study

log = logging.getLogger(__name__)

JOURNAL, BEST = "studies.log", "best.json"  # in the sweep's folder
Launch = Callable[[list[list[str]], int], None]


@dataclass
class Search:
    """`space` maps keys to ranges (`optuna_study.distribution`); `objectives` are names of metrics."""

    space: dict[str, str]
    objectives: list[str] = field(
        default_factory=lambda: [metrics.GEOMEAN_EDGES.name, metrics.TEST_LOSS.name]
    )
    n_trials: int = 24
    batch: int = 1
    seed: int = 0


def tune(search: Search, jobs: Sequence[Sequence[str]], config: DictConfig, launch: Launch) -> int:
    """Run a search from each of `jobs`; return the number of trials that failed and are still missing.

    `launch(jobs, first)` runs jobs; `first` is the number of the first job.

    Raises:
        UserError: `search` is invalid, or Optuna is not installed.
        Interrupted: the process received a signal.
    """
    runs = destination(config.root, config.sweep_name).folder
    with locked(runs / JOURNAL):
        studies = [_study(search, runs / JOURNAL, job, config) for job in jobs]
        try:
            _rounds(search, studies, runs, launch)
        finally:
            _report(studies, runs)
    if interrupted := received():
        raise interrupted
    return sum(max(0, search.n_trials - len(study.finished())) for study in studies)


def _study(search: Search, journal: Path, fixed: Sequence[str], config: DictConfig) -> "Study":
    try:
        from sparsity_lab.sweep.optuna_study import Study, distribution
    except ModuleNotFoundError as error:
        raise UserError(f"hydra.sweeper.search needs the extra [tuning]: {error}") from None
    by_name = {metric.name: metric for metric in metrics.SUMMARY}
    if unknown := sorted(set(search.objectives) - set(by_name)):
        raise UserError(f"hydra.sweeper.search.objectives: {unknown}: allowed: {', '.join(by_name)}")
    given = {override.partition("=")[0] for override in fixed}
    space = {key: distribution(key, text) for key, text in search.space.items() if key not in given}
    defaults = {key: OmegaConf.select(config, key) for key in space}
    return Study(journal, fixed, space, [by_name[name] for name in search.objectives], defaults, search.seed)


def _rounds(search: Search, studies: Sequence["Study"], runs: Path, launch: Launch) -> None:
    """Ask, launch and tell until this command has run as many trials as each study was missing."""
    folder, command, first = runs / FOLDER, secrets.token_hex(4), 0
    lacking = [max(0, search.n_trials - len(study.finished())) for study in studies]
    waiting = [study.begun() for study in studies]
    plan = [study.overrides(trial) for study in studies for trial in study.finished()]
    while any(lacking) and not received():
        asked: list[tuple[Study, FrozenTrial]] = []
        for index, study in enumerate(studies):
            size = min(search.batch, lacking[index])
            again, waiting[index] = waiting[index][:size], waiting[index][size:]
            asked += [(study, trial) for trial in [*again, *(study.ask() for _ in range(size - len(again)))]]
            lacking[index] -= size
        jobs = [study.overrides(trial) for study, trial in asked]
        plan += jobs
        write_plan(folder, plan, command)
        launch(jobs, first)
        first += len(jobs)
        for study, trial in asked:
            _tell(study, trial, runs, folder)
        finished = sum(len(study.finished()) for study in studies)
        log.info("%d of %d trials are finished", finished, search.n_trials * len(studies))


def _tell(study: "Study", trial: "FrozenTrial", runs: Path, folder: Path) -> None:
    job = read_status(job_file(folder, study.overrides(trial)))
    from sparsity_lab.results.record import read_record

    if job is not None and job.state in ("finished", "reused"):
        study.tell(trial, read_record(runs / job.name).metrics)
    elif job is not None and job.state == "failed":
        study.tell(trial, None)


def _report(studies: Sequence["Study"], runs: Path) -> None:
    """Log the best trials and write them beside the runs."""
    folder, found = runs / FOLDER, []
    for study in studies:
        best: list[dict[str, Any]] = []
        for trial in study.front():
            job = read_status(job_file(folder, study.overrides(trial)))
            objectives = {m.name: value for m, value in zip(study.objectives, trial.values, strict=True)}
            values = {key: trial.params[key] for key in study.space}
            best.append({"run": job.name if job else "", "objectives": objectives, "values": values})
        found.append({"study": study.fixed, "finished": len(study.finished()), "best": best})
        lines = "\n".join(_line(one["objectives"]) + "  " + _line(one["values"]) for one in best)
        log.info("the best of %s:\n%s", " ".join(study.fixed), lines or "none yet")
    write_json(runs / BEST, found)
    log.info("the best trials are in %s", runs / BEST)


def _line(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )
