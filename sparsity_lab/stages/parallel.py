"""Folders that know nothing of each other, built side by side: a model's tasks, each by one thread.

One task leaves a second core half idle. A folder is always made by one thread, here or in a process of its
own, so that its bits do not depend on the number of cores or on what was there already.
"""

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any

import torch

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.signals import serve
from sparsity_lab.core.stage import build
from sparsity_lab.kernels.install import Switch
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.model.dispatch import kernels_are_on

PRELOADED = ["sparsity_lab.stages.evidence"]  # it imports most of what tasks are worked on with


def build_all(
    folders: Mapping[str, Path],
    abouts: Mapping[str, Mapping[str, Any]],
    prepare: Callable[[], Callable[[str, Path], None]],
) -> None:
    """`base.build` for folders by name, on as many cores as torch may use.

    `prepare` is called if a folder is missing; what it returns fills the folder of a name, and must be
    picklable. The first failure ends all that is under way.

    Raises:
        UserError: a finished folder is damaged, or the system ended a process.
    """
    for name, folder in folders.items():
        if folder.exists():
            build(folder, abouts[name], lambda partial_folder: None)  # looks whether it is as it was
    missing = [name for name, folder in folders.items() if not folder.exists()]
    if not missing:
        return
    make = prepare()
    jobs = [partial(build, folders[name], abouts[name], partial(make, name)) for name in missing]
    workers = min(torch.get_num_threads(), len(jobs))
    if workers == 1:
        with _one_thread():
            for job in jobs:
                job()
        return
    with _pool(workers) as pool:
        try:
            for done in as_completed([pool.submit(job) for job in jobs]):
                done.result()
        except BrokenProcessPool:
            raise UserError(
                f"threads: {workers}: the system ended a process, for want of memory most likely; "
                "lower threads, then give the same command again"
            ) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # OpenMP's threads do not survive a fork of this process, so another one, which has none, is forked
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    lines = context.Queue()
    listener = QueueListener(lines, _Here())
    listener.start()
    level = logging.getLogger().getEffectiveLevel()
    switch: Switch = "on" if kernels_are_on() else "off"
    pool = ProcessPoolExecutor(workers, context, _begin, (lines, level, switch))
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.kill()  # it heeds no other signal; what it had half-built is nobody's
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        listener.stop()


def _begin(lines: Any, level: int, kernels: Switch) -> None:
    serve()
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
