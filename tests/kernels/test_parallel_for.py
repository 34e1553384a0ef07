"""A kernel's parts cover its rows, each once, whatever the number of threads."""

import ctypes
import subprocess
import sys
import threading
from typing import Any

import numba
import numpy as np
import pytest
import torch

from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for


@numba.njit(nogil=True)
def count_part(begin: int, end: int, counts: np.ndarray, step: int) -> None:
    for row in range(begin, end):
        counts[row] += step


@numba.njit(nogil=True)
def count(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(count_part, threads, size, arguments)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_row_is_worked_on_once(size: int, threads: int) -> None:
    counts = np.zeros(size, dtype=np.int64)
    count(threads, size, counts, 3)
    assert (counts == 3).all()


usleep = ctypes.CDLL(None).usleep
usleep.argtypes = [ctypes.c_uint]


@numba.njit(nogil=True)
def wait_part(begin: int, end: int, done: np.ndarray, others_done: np.ndarray) -> None:
    """The piece with row 0 waits, 5 s at most, until all later rows are done."""
    if begin == 0:
        for _ in range(5000):
            if done[end:].all():
                break
            usleep(1000)
        others_done[0] = done[end:].all()
    done[begin:end] = 1


@numba.njit(nogil=True)
def wait(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(wait_part, threads, size, arguments)


def test_a_free_thread_takes_the_work_of_one_that_is_held_up() -> None:
    done, others_done = np.zeros(64, dtype=np.int64), np.zeros(1, dtype=np.int64)
    wait(2, done.size, done, others_done)
    assert done.all()
    assert others_done[0]


def test_without_torchs_library_one_thread_does_it_all() -> None:
    """In a process of its own: what is bound once stays."""
    program = """
import numba, numpy as np
from sparsity_lab.kernels.cpu import parallel_for
parallel_for.bind(parallel_for._OneThread)

@numba.njit(nogil=True)
def fill_part(begin, end, x):
    for row in range(begin, end):
        x[row] += 1

@numba.njit(nogil=True)
def fill(threads, size, *arguments):
    parallel_for.parallel_for(fill_part, threads, size, arguments)

x = np.zeros(7)
fill(3, 7, x)
assert (x == 1).all(), x
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@numba.njit(nogil=True)
def fail_part(begin: int, end: int, limit: int) -> None:
    if end > limit:
        raise ValueError("too large")


@numba.njit(nogil=True)
def fail(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(fail_part, threads, size, arguments)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_one_part_is_told(threads: int) -> None:
    fail(threads, 9, 9)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        fail(threads, 9, 8)


def test_there_are_no_more_parts_than_rows_nor_than_torch_has_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert [threads_for(size) for size in (0, 1, 2, 3, 100)] == [1, 1, 2, 3, 3]
    finally:
        torch.set_num_threads(threads)


def test_several_python_threads_may_call_at_once() -> None:
    counts = np.zeros((4, 10_000), dtype=np.int64)
    callers = [threading.Thread(target=lambda row=row: count(2, len(row), row, 1)) for row in counts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (counts == 1).all()
