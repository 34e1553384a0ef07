"""Training on several devices: one process a device (a rank), each with its share of every step's batch.

1. Lightning's DDP averages the ranks' gradients, so that all take the step that one process would take with
   the whole batch;
2. each rank then projects its own copy: projection is deterministic, so the copies stay equal to the bit;
3. rank 0 alone logs, and writes checkpoints.

On one machine, `other_ranks` starts them for as long as the training lasts. On several, torchrun or srun
starts the program once a device, and all but the first process only help to train.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from sparsity_lab.core.environment import environment_variables
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.extension import load_file, loaded_files
from sparsity_lab.core.signals import Interrupted
from sparsity_lab.kernels.install import Switch
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.training.config import TrainerConfig

JOIN_SECONDS = 60.0  # rank 0 is done: the others have nothing left but to leave
LEAVE_SECONDS = 20.0  # rank 0 failed: if because another did, that one is on its way out


def cluster(config: TrainerConfig) -> ClusterEnvironment:
    """Who starts the ranks: torchrun, srun, or this program.

    Raises:
        UserError: there shall be several nodes and nobody has started their processes, or not as many.
    """
    if config.ranks == 1:
        return LightningEnvironment()
    if TorchElasticEnvironment.detect():
        found: ClusterEnvironment = TorchElasticEnvironment()
        size = found.world_size()
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect():
        found = SLURMEnvironment(auto_requeue=False)
        size = found.world_size()
    else:
        found, size = LightningEnvironment(), config.devices
    if size != config.ranks:
        raise UserError(
            f"trainer.devices · trainer.num_nodes is {config.ranks}, but there are {size} processes: "
            "start the program once a device, by srun or torchrun"
        )
    return found


@contextmanager
def other_ranks(config: TrainerConfig, work: Callable[[], object]) -> Iterator[None]:
    """While the block does `work` as rank 0, this machine's other ranks do it in processes of their own.

    `work` must be picklable. A rank that fails ends all; none outlives the block.

    Raises:
        RuntimeError: another rank failed; its own words are in the log.
    """
    if config.ranks == 1 or not isinstance(cluster(config), LightningEnvironment):
        yield
        return
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    spawn, payload = multiprocessing.get_context("spawn"), pickle.dumps(work)  # by value: nothing is shared
    threads, kernels = torch.get_num_threads(), "on" if kernels_are_on() else "off"
    files = [path for name, path in loaded_files().items() if name.encode() in payload]
    others = [
        spawn.Process(
            target=_work_as,
            args=(payload, files, place | {"LOCAL_RANK": str(local)}, threads, kernels),
        )
        for local in range(1, config.devices)
    ]
    try:
        for process in others:
            process.start()
        with environment_variables(place | {"LOCAL_RANK": "0"}):
            yield
        for process in others:
            process.join(JOIN_SECONDS)
    except RuntimeError as error:  # as when the connection to a rank breaks
        gone = wait([process.sentinel for process in others], timeout=LEAVE_SECONDS)
        for process in others:
            if process.sentinel in gone:
                process.join()  # its files are closed; a moment later it has its exit status
        _tell_failed(others, error)
        raise
    finally:
        for process in others:
            if process.pid is not None:
                process.kill()  # not SIGTERM, at which Lightning would wait for a step that never ends
                process.join()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    _tell_failed(others)


def _tell_failed(others: Sequence[BaseProcess], error: Exception | None = None) -> None:
    for local, process in enumerate(others, start=1):
        if process.exitcode:
            raise RuntimeError(f"rank {local} failed with exit status {process.exitcode}") from error


def _work_as(
    payload: bytes, files: Sequence[Path], place: dict[str, str], threads: int, kernels: Switch
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):  # rank 0 hears it too, and ends all
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(place)
    prepare_processor(threads, kernels)
    try:
        for path in files:
            load_file(path, "file")  # the payload may hold objects of its classes
        pickle.loads(payload)()
    except (UserError, Interrupted):
        sys.exit(1)  # rank 0 has the same to say


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
