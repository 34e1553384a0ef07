"""A Hydra sweeper for sweeps that are not one product: a list of grids, each a product of its own.

Hydra's basic sweeper makes a single cross product, so a baseline of other widths, or another learning rate
for it, would need a second sweep. Here `hydra.sweeper.grids` is a list, and the command line's own values
multiply, or override, those of every grid.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

PLUGIN_MODULE = "hydra_plugins.sparsity_lab"  # Hydra takes plugins from this namespace alone


def grid_points(grids: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of every point: each grid's product, with the command line's `arguments` in all."""
    parser = OverridesParser.create()
    points = []
    for grid in grids or [{}]:
        lines = [f"{key}={value}" for key, value in grid.items()] + list(arguments)
        points += BasicSweeper.split_arguments(parser.parse_overrides(lines), None)[0]
    return points


class GridsSweeper(Sweeper):
    """Launches the points of all grids as one batch; names those that failed when all have run."""

    def __init__(self, grids: Sequence[Mapping[str, Any]]) -> None:
        self.grids = grids
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        assert self.config is not None
        grids: Any = OmegaConf.to_container(self.config.hydra.sweeper.grids)
        points = grid_points(grids, arguments)
        self.validate_batch_is_legal(points)
        results = self.launcher.launch(points, initial_job_idx=0)
        ended = zip(points, results, strict=True)
        failed = [point for point, result in ended if result.status != JobStatus.COMPLETED]
        if failed:
            lines = "\n  ".join(" ".join(point) for point in failed)
            raise HydraException(f"{len(failed)} of {len(points)} points failed:\n  {lines}")
        return [[result.return_value for result in results]]


@dataclass
class GridsSweeperConfig:
    """`hydra/sweeper: grids`."""

    _target_: str = "hydra_plugins.sparsity_lab.GridsSweeper"
    grids: list[dict[str, Any]] = field(default_factory=list)


def register_sweeper() -> None:
    """Tell Hydra of the sweeper."""
    module = ModuleType(PLUGIN_MODULE)
    module.GridsSweeper = GridsSweeper  # type: ignore[attr-defined]
    sys.modules[PLUGIN_MODULE] = module
    GridsSweeper.__module__ = PLUGIN_MODULE
    Plugins.instance().register(GridsSweeper)
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="grids", node=GridsSweeperConfig, provider="sparsity_lab")


def folder_of(name: str) -> Path:
    """`conf` or `sweeps`: at the top of a clone, inside the package of an installed wheel."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def register_sweeps() -> None:
    """Make every file of sweeps/ an option of the group `sweep`, whatever the working directory."""
    store = ConfigStore.instance()
    for path in sorted(folder_of("sweeps").glob("*.yaml")):
        node: Any = OmegaConf.load(path)
        store.store(group="sweep", name=path.stem, node=node, package="_global_", provider=str(path))
