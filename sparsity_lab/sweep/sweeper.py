"""A Hydra sweeper that runs a list of grids, each its own cross product.

Hydra's basic sweeper makes a single cross product, so a baseline with other widths or another learning rate
would need a second sweep. Here `hydra.sweeper.grids` is a list. Values on the command line multiply or
override those of every grid. With `hydra.sweeper.choice`, trials choose a value before the jobs run. With
`hydra.sweeper.search`, each job starts a search.

A job whose record lies in the folder `records` counts as done. So a sweep goes on on another machine.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.names import Destination, destination
from sparsity_lab.core.next_command import analysis_command
from sparsity_lab.core.renamed import renamed_in_overrides
from sparsity_lab.core.signals import received
from sparsity_lab.sweep import choice
from sparsity_lab.sweep.choice import Choice, Group
from sparsity_lab.sweep.job_status import DONE, FOLDER, Foreseen, write_plan
from sparsity_lab.sweep.launching import launch, plan_and_launch
from sparsity_lab.sweep.search import Search, tune
from sparsity_lab.sweep.status_table import jobs_of, table

log = logging.getLogger(__name__)

PLUGIN_MODULE = "hydra_plugins.sparsity_lab"  # Hydra accepts plugins only from this namespace


def grid_jobs(grids: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job: each grid's product with the command line's `arguments`."""
    parser = OverridesParser.create()
    jobs = []
    for grid in grids or [{}]:
        lines = [f"{key}={value}" for key, value in grid.items()] + list(arguments)
        jobs += BasicSweeper.split_arguments(parser.parse_overrides(lines), None)[0]
    return jobs


class GridsSweeper(Sweeper):
    """Launch the jobs of all grids as one batch, then log their status table.

    `foresee` says what is known of a job before it runs, from its composed config.
    """

    foresee: Callable[[DictConfig], Foreseen] | None = None

    def __init__(
        self,
        grids: Sequence[Mapping[str, Any]],
        search: Search | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.grids, self.search = grids, search
        plain: Any = OmegaConf.to_object(choice) if OmegaConf.is_config(choice) else choice
        self.choice: Choice | None = plain
        self.launcher: Launcher | None = None
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        assert self.config is not None
        grids: Any = OmegaConf.to_container(self.config.hydra.sweeper.grids)
        jobs = grid_jobs(grids, arguments)
        if renamed := renamed_in_overrides(override for job in jobs for override in job):
            raise HydraException("; ".join(renamed))
        folder = self._destination(jobs).folder / FOLDER
        if self.search is not None:
            self.validate_batch_is_legal(jobs)
            self._tune(jobs, folder)
            return
        untold = 0
        if trials := self._trials(jobs, folder.parent.name):
            untold = self._work_with_trials(jobs, trials, folder)
        else:
            self._work(jobs, range(len(jobs)), folder)
        unfinished = sum(state not in DONE for state, _, _ in jobs_of(folder))
        if unfinished:
            waiting = f"; {untold} of them wait for trials that failed" if untold else ""
            raise HydraException(f"{unfinished} of {len(jobs)} jobs are not finished{waiting}")
        if command := analysis_command("report.py", folder.parent):
            log.info("a page of all results: %s", command)

    def _work(self, jobs: list[list[str]], ready: Sequence[int], folder: Path, before: str = "") -> None:
        """Plan the jobs and launch those that are ready, given by their indices.

        Raises:
            Interrupted: the process received a signal.
        """
        assert self.launcher is not None
        known = [self._foreseen(job) for job in jobs]
        try:
            plan_and_launch(self.launcher, jobs, ready, known, folder, before)
        finally:
            if folder.is_dir():
                log.info("the jobs of %s:\n%s", folder.parent.name, table(folder))
        if interrupted := received():
            raise interrupted

    def _trials(self, jobs: list[list[str]], sweep_name: str) -> dict[Group, list[list[str]]]:
        """Return the trials of each group of jobs; none without a choice, or if its value is given.

        Raises:
            HydraException: the settings of the choice are wrong.
        """
        if self.choice is None:
            return {}
        try:
            choice.check(self.choice, sweep_name)
            self._folder_of_trials()
        except UserError as error:
            raise HydraException("; ".join(str(error).splitlines())) from None
        lines = choice.trial_lines(self.choice, jobs)
        return {group: grid_jobs([], overrides) for group, overrides in lines.items()}

    def _folder_of_trials(self) -> Path:
        assert self.choice is not None
        assert self.config is not None
        return destination(self.config.get("root"), self.choice.sweep_name).folder / FOLDER

    def _work_with_trials(
        self, jobs: list[list[str]], trials: Mapping[Group, list[list[str]]], folder: Path
    ) -> int:
        """Run the trials of some groups, then the jobs that have a value, and so on.

        Return how many jobs have no value, since trials of their group failed.

        Raises:
            Interrupted: the process received a signal.
        """
        assert self.choice is not None
        place = self._folder_of_trials()
        all_trials = [(group, trial) for group, several in trials.items() for trial in several]
        write_plan(folder, jobs, before=place.parent.name)
        found: list[list[str] | None] = []
        for groups, indices in choice.portions(self.choice, jobs, list(trials)):
            now = [index for index, (group, _) in enumerate(all_trials) if group in groups]
            self._work([trial for _, trial in all_trials], now, place)
            best = choice.chosen(self.choice, trials, place)
            found = [choice.with_choice(self.choice, job, best) for job in jobs]
            planned = [ready or job for job, ready in zip(jobs, found, strict=True)]
            ready = [index for index in indices if found[index] is not None]
            self._work(planned, ready, folder, place.parent.name)
        return found.count(None)

    def _foreseen(self, job: Sequence[str]) -> Foreseen | None:
        """Compose a job's config; return what is known of the job, None if the config is wrong.

        Raises:
            HydraException: Hydra refuses an override.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        if (key := tuple(job)) not in self._composed:  # the same jobs are planned again before each portion
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
            own = [str(name) for name in config if name != "hydra"]
            self._composed[key] = OmegaConf.masked_copy(config, own)
        if self.foresee is None:
            return None
        try:
            return self.foresee(self._composed[key])
        except (UserError, OmegaConfBaseException):
            return None  # the job itself tells what is wrong

    def _destination(self, jobs: Sequence[Sequence[str]]) -> Destination:
        """Return the root and name of the sweep, which all of its jobs share.

        Raises:
            HydraException: they are not allowed, or some job has others.
        """
        assert self.config is not None
        parser = OverridesParser.create()
        own = {"root": self.config.get("root"), "sweep_name": self.config.get("sweep_name")}
        for override in parser.parse_overrides(sorted({override for job in jobs for override in job})):
            key = override.key_or_group
            if key in own and override.value() != own[key]:
                raise HydraException(
                    f"{key}: {override.get_value_element_as_str()}: one sweep has one {key}; give it on the "
                    "command line, or at the head of the sweep's file"
                )
        try:
            return destination(own["root"], own["sweep_name"])
        except UserError as error:
            raise HydraException("; ".join(str(error).splitlines())) from None

    def _tune(self, jobs: list[list[str]], folder: Path) -> None:
        def launch_trials(trials: list[list[str]], first: int) -> None:
            assert self.launcher is not None
            self.validate_batch_is_legal(trials)
            launch(self.launcher, trials, folder, first)

        assert self.search is not None
        assert self.config is not None
        try:
            lacking = tune(self.search, jobs, self.config, launch_trials)
        except UserError as error:
            raise HydraException(str(error)) from None
        log.info("the trials of this search:\n%s", table(folder))
        if lacking:
            raise HydraException(f"{lacking} trials failed; to try as many others, repeat the command")


@dataclass
class GridsSweeperConfig:
    """Config of `hydra/sweeper: grids`."""

    _target_: str = "hydra_plugins.sparsity_lab.GridsSweeper"
    grids: list[dict[str, Any]] = field(default_factory=list)
    search: Search | None = None
    choice: Choice | None = None


def register_sweeper(foresee: Callable[[DictConfig], Foreseen] | None = None) -> None:
    """Register the sweeper with Hydra. `foresee` says what is known of a job before it runs."""
    GridsSweeper.foresee = staticmethod(foresee) if foresee else None
    module = ModuleType(PLUGIN_MODULE)
    module.GridsSweeper = GridsSweeper  # type: ignore[attr-defined]
    sys.modules[PLUGIN_MODULE] = module
    GridsSweeper.__module__ = PLUGIN_MODULE
    Plugins.instance().register(GridsSweeper)
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="grids", node=GridsSweeperConfig, provider="sparsity_lab")


def folder_of(name: str) -> Path:
    """Locate `conf` or `sweeps`: at the top of a clone, or inside the package of an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def register_sweeps() -> None:
    """Make every file of sweeps/ an option of the group `sweep`, whatever the working directory."""
    store = ConfigStore.instance()
    for path in sorted(folder_of("sweeps").glob("*.yaml")):
        node: Any = OmegaConf.load(path)
        store.store(group="sweep", name=path.stem, node=node, package="_global_", provider=str(path))
