"""A program that composes a run's config, or those of a sweep's jobs, and writes one text about it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sparsity_lab.core.errors import UserError
from sparsity_lab.sweep.choice import Choice, trial_lines
from sparsity_lab.sweep.refusals import command_line_error
from sparsity_lab.sweep.sweeper import folder_of, grid_jobs, register_sweeper, register_sweeps


@dataclass(frozen=True)
class ComposedSweep:
    """The configs of a sweep's jobs, in their order, and of the trials that come first, if there are any."""

    jobs: list[DictConfig]
    trials: list[DictConfig]


def write_about(
    overrides: Sequence[str],
    text_of: Callable[[DictConfig], str],
    text_of_sweep: Callable[[ComposedSweep], str] | None = None,
) -> int:
    """Write the text of the composed config, or one line about a mistake; return the exit status.

    With `text_of_sweep` and an override `+sweep=NAME`, it is the text of that sweep.
    """
    register_sweeps()
    register_sweeper()
    is_sweep = any(override.startswith("+sweep=") for override in overrides)
    try:
        with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
            if is_sweep and text_of_sweep is not None:
                sys.stdout.write(text_of_sweep(composed_sweep(overrides)))
            else:
                sys.stdout.write(text_of(compose("config", list(overrides))))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except Exception as error:
        told = command_line_error(error, overrides, folder_of("conf"))
        if told is None:
            raise
        sys.stderr.write(f"error: {told}\n")
        return 1
    return 0


def composed_sweep(overrides: Sequence[str]) -> ComposedSweep:
    """Compose every job of a sweep, inside Hydra's context; `overrides` name the sweep and may change it."""
    trials, jobs = sweep_overrides(overrides)
    return ComposedSweep(
        jobs=[compose("config", job) for job in jobs], trials=[compose("config", job) for job in trials]
    )


def sweep_overrides(overrides: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the overrides of a sweep's trials and of its jobs, inside Hydra's context."""
    sweeper = compose("config", list(overrides), return_hydra_config=True).hydra.sweeper
    own = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
    jobs = grid_jobs(OmegaConf.to_container(sweeper.grids), own)  # type: ignore[arg-type]
    choice = OmegaConf.to_object(sweeper.choice) if sweeper.choice is not None else None
    if not isinstance(choice, Choice):
        return [], jobs
    lines = trial_lines(choice, jobs).values()
    return [trial for one in lines for trial in grid_jobs([], one)], jobs
