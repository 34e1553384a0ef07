"""Sums of rows of a float32 or bfloat16 matrix, in float32: all of them, or those of each token.

PyTorch makes a float32 copy of a bfloat16 matrix first, which takes several times as long.

Shapes: n rows, c columns, v tokens.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for
from sparsity_lab.kernels.cpu.simd import as_array, as_float


def sum_rows(x_nc: Tensor) -> Tensor:
    """Return the sum of all rows (c)."""
    sum_1c = torch.zeros(1, x_nc.shape[1])
    add_rows(x_nc, torch.zeros(len(x_nc), dtype=torch.int64), sum_1c)
    return sum_1c[0]


def add_rows(x_nc: Tensor, tokens_n: Tensor, sums_vc: Tensor) -> None:
    """Add each row of `x_nc` to the row of its token in `sums_vc`."""
    shares = threads_for(x_nc.shape[1])  # no more: adding many columns of a row at once is faster
    _add_rows(shares, shares, shares, as_array(x_nc), tokens_n.numpy(), sums_vc.numpy())


@numba.njit(cache=True, nogil=True)
def _add_rows_part(
    first: int, last: int, shares: int, x_nc: np.ndarray, tokens_n: np.ndarray, sums_vc: np.ndarray
) -> None:
    begin, end = first * x_nc.shape[1] // shares, last * x_nc.shape[1] // shares
    for n in range(tokens_n.size):
        sums_c, x_c = sums_vc[tokens_n[n], begin:end], x_nc[n, begin:end]
        for c in range(end - begin):  # from 0, so that no index can be negative, and the loop becomes vectors
            sums_c[c] += as_float(x_c[c])


@numba.njit(cache=True, nogil=True)
def _add_rows(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_add_rows_part, threads, size, arguments)
