"""SIGINT and SIGTERM, as one exception that comes at a moment which loses nothing.

A signal raises `Interrupted` at once, except within `deferred()`: there it is only noted, so that a training
can finish its step and save it. A second signal raises at once anywhere.

A cluster that wants the machine back sends SIGUSR2 to jobs of submitit, whose handler puts the job back into
the queue and ends the process. Here it waits like the others, and `requeue_if_preempted` calls that handler.
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
        super().__init__(number)  # all that another process needs to have it again
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
    """Take the two signals over, where nobody else has (submitit does)."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _receive)
    requeue = signal.getsignal(signal.SIGUSR2)
    if callable(requeue) and requeue is not _receive:
        _State.requeue = requeue
        signal.signal(signal.SIGUSR2, _receive)


def requeue_if_preempted() -> None:
    """If a cluster has asked for the machine: put the job back into the queue, and end this process."""
    if _State.received == signal.SIGUSR2 and _State.requeue is not None:
        _State.requeue(signal.SIGUSR2, None)


def received() -> Interrupted | None:
    """What the first signal of this process asks for, if one came: nothing new should be begun."""
    return None if _State.received is None else Interrupted(_State.received)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a block end by itself: it looks at `received` at moments of its own, and raises it."""
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
    """In a worker process: end as soon as the process that started it is gone, however it went."""
    if _State.parent is None:
        _State.parent = os.getppid()
        threading.Thread(target=_watch, args=(_State.parent,), daemon=True).start()


def begin_worker() -> None:
    """In a worker of a pool: signals, which a cluster sends to all of a job, are the owner's to act on.

    The worker ends when that process is gone, which need not be the one it was forked from.
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
