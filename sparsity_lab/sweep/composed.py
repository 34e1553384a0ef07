"""A program that composes a run's config from overrides and writes one text about it."""

import sys
from collections.abc import Callable, Sequence

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from sparsity_lab.core.errors import UserError
from sparsity_lab.sweep.refusals import command_line_error
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper, register_sweeps


def write_about(overrides: Sequence[str], text_of: Callable[[DictConfig], str]) -> int:
    """Write `text_of` the composed config, or one line about a mistake; return the exit status."""
    register_sweeps()
    register_sweeper()
    try:
        with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
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
