"""Data-parallel training on several devices: one process (rank) per device, each with a share of the batch.

1. Lightning's DDP averages the ranks' gradients, so every rank takes the same step as a single process with
   the whole batch.
2. Each rank then projects its own copy. Projection is deterministic, so the copies stay bit-identical.
   `copies.py` checks that at each checkpoint and at the end.
3. Only rank 0 logs and writes checkpoints.

On one machine, `other_ranks` starts the ranks and stops them after the training. On several machines,
torchrun or srun starts the program once per device; all processes but the first only help to train.
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
from sparsity_lab.training.place import hide_launchers, place

JOIN_SECONDS = 60.0  # how long rank 0, once done, waits for the others to exit
LEAVE_SECONDS = 20.0  # how long a failed rank 0 waits for failed others to exit


class OneProcess(LightningEnvironment):
    """The environment of a training in one process: its place does not depend on any variable."""

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return 0


def cluster(config: TrainerConfig) -> ClusterEnvironment:
    """Return the environment that starts the ranks: torchrun, srun, or this program.

    Raises:
        UserError: the number of processes is not devices · num_nodes.
    """
    launcher = place(config).launcher
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    if launcher == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return OneProcess() if config.ranks == 1 else LightningEnvironment()


@contextmanager
def other_ranks(config: TrainerConfig, work: Callable[[], object]) -> Iterator[None]:
    """Run `work` in this machine's other ranks while the block runs it as rank 0.

    `work` must be picklable. If one rank fails, all are stopped. No rank outlives the block.

    Raises:
        RuntimeError: another rank failed; its error is in the log.
    """
    found = place(config)
    if config.ranks == 1 or found.launcher != "none":
        with hide_launchers(found):
            yield
        return
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    # without it Lightning would set it, for good, and choose the number of threads
    variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    spawn, payload = multiprocessing.get_context("spawn"), pickle.dumps(work)  # by value: nothing is shared
    threads, kernels = torch.get_num_threads(), "on" if kernels_are_on() else "off"
    files = [path for name, path in loaded_files().items() if name.encode() in payload]
    others = [
        spawn.Process(
            target=_work_as,
            args=(payload, files, variables | {"LOCAL_RANK": str(local)}, threads, kernels),
        )
        for local in range(1, config.devices)
    ]
    try:
        with hide_launchers(found):
            for process in others:
                process.start()
            with environment_variables(variables | {"LOCAL_RANK": "0"}):
                yield
        for process in others:
            process.join(JOIN_SECONDS)
    except RuntimeError as error:  # for example, the connection to a rank broke
        gone = wait([process.sentinel for process in others], timeout=LEAVE_SECONDS)
        for process in others:
            if process.sentinel in gone:
                process.join()  # sets its exit status
        _tell_failed(others, error)
        raise
    finally:
        for process in others:
            if process.pid is not None:
                process.kill()  # on SIGTERM, Lightning would wait for a step that never ends
                process.join()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    _tell_failed(others)


def _tell_failed(others: Sequence[BaseProcess], error: Exception | None = None) -> None:
    for local, process in enumerate(others, start=1):
        if process.exitcode:
            raise RuntimeError(f"rank {local} failed with exit status {process.exitcode}") from error


def _work_as(
    payload: bytes, files: Sequence[Path], variables: dict[str, str], threads: int, kernels: Switch
) -> None:
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGUSR2,
    ):  # rank 0 receives it too and stops all ranks
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(variables)
    prepare_processor(threads, kernels)
    try:
        for path in files:
            load_file(path, "file")  # the payload may contain instances of its classes
        pickle.loads(payload)()
    except (UserError, Interrupted):
        sys.exit(1)  # rank 0 reports the same error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
