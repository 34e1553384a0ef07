"""Peak memory of a piece of work, measured in a process of its own."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path


def most_resident() -> float:
    """Return this process's peak resident memory so far, in megabytes; NaN outside Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def in_own_process(call: Callable[[], float]) -> float:
    """Return the result of `call`, which must be picklable, from a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call).result()
