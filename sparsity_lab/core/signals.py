"""Turn SIGINT and SIGTERM into one exception, delayed where raising it at once would lose work.

A signal raises `Interrupted` at once, except within `deferred()`. There it is only recorded, so that training
can finish and save its step. A second signal always raises at once.

To preempt a job, a cluster sends SIGUSR2. Submitit's handler then requeues the job and ends the process. This
module delays SIGUSR2 like the other signals, and `requeue_if_preempted` calls submitit's handler afterwards.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The process has been asked to end; no `except Exception` may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # the argument that unpickling needs
        self.number = number
        self.status = 128 + number  # the exit status that a shell gives a process ended by this signal

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.status - 128).name}"


class _State:
    deferring = False
    received: int | None = None
    parent: int | None = None
    requeue: Callable[[int, FrameType | None], object] | None = None


def take_over() -> None:
    """Handle SIGINT and SIGTERM here unless another library does; wrap submitit's SIGUSR2 handler."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _receive)
    requeue = signal.getsignal(signal.SIGUSR2)
    if callable(requeue) and requeue is not _receive:
        _State.requeue = requeue
        signal.signal(signal.SIGUSR2, _receive)


def requeue_if_preempted() -> None:
    """Requeue the job and end this process, if the cluster has preempted it."""
    if _State.received == signal.SIGUSR2 and _State.requeue is not None:
        _State.requeue(signal.SIGUSR2, None)


def received() -> Interrupted | None:
    """Return the pending interruption, or None. After one, callers should start nothing new."""
    return None if _State.received is None else Interrupted(_State.received)


@contextmanager
def deferred() -> Iterator[None]:
    """Delay interruption inside the block, which polls `received`; raise it when the block ends."""
    _State.deferring = True
    try:
        yield
    finally:
        _State.deferring = False
    if interrupted := received():
        raise interrupted


def _receive(number: int, frame: FrameType | None) -> None:
    first, _State.received = _State.received is None, number
    if not (first and _State.deferring):
        raise Interrupted(number)


def die_with_parent() -> None:
    """End this worker process as soon as its parent is gone, for whatever reason."""
    if _State.parent is None:
        _State.parent = os.getppid()
        threading.Thread(target=_watch, args=(_State.parent,), daemon=True).start()


def begin_worker() -> None:
    """Ignore signals in a pool worker, and end it when its owner is gone.

    A cluster signals every process of a job, but only the pool's owner acts on it. The owner need not be the
    process that the worker was forked from.
    """
    for number in (*SIGNALS, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    owner = multiprocessing.parent_process()
    assert owner is not None  # this is a worker

    def watch() -> None:
        owner.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
