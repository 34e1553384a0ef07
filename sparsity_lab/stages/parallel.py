"""Folders that know nothing of each other, built side by side: a model's tasks, each by one thread.

One task leaves a second core half idle. A folder is always made by one thread, here or in a process of its
own, so that its bits do not depend on the number of cores or on what was there already.
"""

import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any

import torch

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.signals import begin_worker
from sparsity_lab.core.stage import Built, Stage, run_stage
from sparsity_lab.kernels.install import Switch
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.model.dispatch import kernels_are_on

METHOD = "forkserver"  # OpenMP's threads do not survive a fork of this process; the server has none


def preload(modules: Iterable[str]) -> None:
    """Have workers start with `modules` imported. Only a call before the first worker has an effect."""
    multiprocessing.get_context(METHOD).set_forkserver_preload(list(modules))


def build_many(
    stages: Mapping[str, Stage], root: Path, prepare: Callable[[], object] = lambda: None
) -> dict[str, Built]:
    """`run_stage` for stages by name, on as many cores as torch may use.

    `prepare` is called once if a folder is missing; it loads what the stages share, before they are sent to
    the workers. Each `make` must be picklable. The first failure ends all that is under way.

    Raises:
        UserError: a finished folder is damaged, or the system ended a process.
    """
    there = {name: stage for name, stage in stages.items() if stage.folder(root).exists()}
    built = {name: run_stage(stage, root) for name, stage in there.items()}
    missing = [name for name in stages if name not in there]
    if missing:
        prepare()
        built |= _build({name: stages[name] for name in missing}, root)
    return {name: built[name] for name in stages}


def _build(stages: Mapping[str, Stage], root: Path) -> dict[str, Built]:
    workers = min(torch.get_num_threads(), len(stages))
    if workers == 1:
        with _one_thread():
            return {name: run_stage(stage, root) for name, stage in stages.items()}
    with _pool(workers) as pool:
        futures = {pool.submit(run_stage, stage, root): name for name, stage in stages.items()}
        try:
            return {futures[done]: done.result() for done in as_completed(futures)}
        except BrokenProcessPool:
            raise UserError(
                f"threads: {workers}: the system ended a process, for want of memory most likely; "
                "lower threads, then give the same command again"
            ) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context(METHOD)
    others = set(multiprocessing.active_children())  # whose work goes on, whatever happens here
    lines = context.Queue()
    listener = QueueListener(lines, _Here())
    listener.start()
    level = logging.getLogger().getEffectiveLevel()
    switch: Switch = "on" if kernels_are_on() else "off"
    pool = ProcessPoolExecutor(workers, context, _begin, (lines, level, switch))
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()  # it heeds no other signal; what it had half-built is nobody's
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        listener.stop()


def _begin(lines: Any, level: int, kernels: Switch) -> None:
    begin_worker()
    prepare_processor(threads=1, kernels=kernels)
    logging.getLogger().addHandler(QueueHandler(lines))
    logging.getLogger().setLevel(level)


class _Here(logging.Handler):
    """Lets this process say what a worker has logged."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
