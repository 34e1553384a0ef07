"""A kernel's loop on as many cores as torch may use, by Python's own threads.

Numba's parallel loops cost 60 to 90 microseconds a call, even with one thread; this costs 40 with two, and
nothing with one. Kernels are compiled with `nogil`, so that they do run side by side.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch


def in_parts(kernel: Callable[..., None], size: int, *arguments: Any) -> None:
    """Call `kernel(begin, end, *arguments)` for consecutive parts of range(size), a thread each."""
    parts = max(1, min(torch.get_num_threads(), size))
    ends = [size * part // parts for part in range(parts + 1)]
    others = [_pool().submit(kernel, *part, *arguments) for part in pairwise(ends[:-1])]
    kernel(*ends[-2:], *arguments)
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "kernel")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
