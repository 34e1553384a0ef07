"""This process's place among those that train one model. Imports neither torch nor Lightning.

The config comes first. If it asks for one process, this one is all there is, whatever variables a shell, a
batch script or a parent process has left. If it asks for several, the launcher's variables tell the rank, and
must agree with the config.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from sparsity_lab.core.environment import environment_variables
from sparsity_lab.core.errors import UserError
from sparsity_lab.training.config import TrainerConfig

Launcher = Literal["none", "torchrun", "srun"]
_RANK_AND_SIZE = {"torchrun": ("RANK", "WORLD_SIZE"), "srun": ("SLURM_PROCID", "SLURM_NTASKS")}
# what torch and Lightning read to find out their place by themselves
VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_RANK"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS"),
)


class Place(NamedTuple):
    """The rank, from 0, of this process among `size`, and the launcher that has started the others.

    Launcher "none": this process is the first, and starts the others itself if there are any.
    """

    rank: int
    size: int
    launcher: Launcher


def place(config: TrainerConfig) -> Place:
    """Return this process's place.

    Raises:
        UserError: the launcher's variables are no ranks, or there are more or fewer processes than
            devices · num_nodes.
    """
    if config.ranks == 1:
        return Place(0, 1, "none")
    launcher = _launcher()
    rank, size = (0, config.devices) if launcher == "none" else _rank_and_size(*_RANK_AND_SIZE[launcher])
    if size != config.ranks:
        raise UserError(
            f"trainer.devices · trainer.num_nodes is {config.ranks}, but there are {size} processes: "
            "start the program once a device, by srun or torchrun"
        )
    return Place(rank, size, launcher)


def unused_processes(config: TrainerConfig) -> str:
    """Say that a launcher may have started several processes for a run of one; empty if nothing suggests it.

    The variables may also be left over, or belong to processes that are meant to make a run each, so this is
    a warning and never an error.
    """
    if config.ranks > 1:
        return ""
    try:
        launcher = _launcher()
        if launcher == "none":
            return ""
        _, size_variable = _RANK_AND_SIZE[launcher]
        size = _number(size_variable)
    except UserError:
        return ""  # left over, and not even a number
    if size == 1:
        return ""
    return (
        f"trainer.devices · trainer.num_nodes is 1, but {size_variable} is {size}: if {launcher} has started "
        f"{size} processes, each of them makes the whole run, or waits for another that makes the same one; "
        f"to train one model in all of them: trainer.devices={size}"
    )


@contextmanager
def hide_launchers(found: Place) -> Iterator[None]:
    """Hide the variables of launchers in the block, unless one of them has started this process."""
    hidden = dict.fromkeys(VARIABLES) if found.launcher == "none" else {}
    with environment_variables(hidden):
        yield


def _launcher() -> Launcher:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_NTASKS" in os.environ and not interactive and _number("SLURM_NTASKS") > 1:
        return "srun"
    return "none"


def _rank_and_size(rank_variable: str, size_variable: str) -> tuple[int, int]:
    rank, size = _number(rank_variable), _number(size_variable)
    if rank >= size:
        raise UserError(f"{rank_variable}: {rank}: must be below {size_variable}, {size}")
    return rank, size


def _number(variable: str) -> int:
    text = os.environ.get(variable)
    if text is None:
        raise UserError(f"{variable}: missing; torchrun and srun set it")
    if not text.isascii() or not text.isdigit():
        raise UserError(f"{variable}: {text!r}: must be a whole number; torchrun and srun set it")
    return int(text)
