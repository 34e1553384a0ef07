"""Selecting the largest magnitudes on a CPU: AbsTopK, and the thresholds that the projection uses.

Magnitudes are compared by the bit pattern of |x| read as an integer, which orders floats exactly. The search
selects the same entries as the plain operation (`ops.largest`).
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for
from sparsity_lab.kernels.derivative import differentiable_once
from sparsity_lab.model.dispatch import register
from sparsity_lab.model.ops import float_bits

Integer = int | np.integer  # numba compiles both to 64-bit integers
GUESSES = 8  # search steps that interpolate between counts; useless when many values are equal
ROWS = 16  # rows searched side by side; each starts at the limit of a row in the previous block


def serves(x_nc: Tensor, k: int) -> bool:
    """Accept every float type on a CPU."""
    return x_nc.device.type == "cpu"


def abs_top_k(x_nc: Tensor, k: int) -> Tensor:
    """Compute `ops.abs_top_k` of rows for k up to their width.

    Raises:
        ValueError: k is not between 0 and the width.
    """
    if not 0 <= k <= x_nc.shape[1]:
        raise ValueError(f"k {k} of {x_nc.shape[1]} channels")
    return _AbsTopK.apply(x_nc, k)


class _AbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nc: Tensor, k: int) -> Tensor:
        bits_nc = float_bits(x_nc)
        y_nc, kept_nc = torch.empty_like(bits_nc), torch.empty(x_nc.shape, dtype=torch.bool)
        mask, blocks = torch.iinfo(bits_nc.dtype).max, (len(x_nc) + ROWS - 1) // ROWS
        _keep_largest(threads_for(blocks), blocks, bits_nc.numpy(), mask, k, y_nc.numpy(), kept_nc.numpy())
        ctx.save_for_backward(kept_nc)
        return y_nc.view(x_nc.dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept_nc,) = ctx.saved_tensors
        grad_nc = float_bits(grads[0])
        out_nc = torch.empty_like(grad_nc)
        rows = len(grad_nc)
        _keep_where(threads_for(rows), rows, grad_nc.numpy(), kept_nc.numpy(), out_nc.numpy())
        return out_nc.view(grads[0].dtype), None


@numba.njit(cache=True, inline="always")
def _count_above(values: np.ndarray, limit: Integer) -> Integer:
    # Comparing in the values' own width and counting in 32 bits lets LLVM vectorise: three times faster.
    narrow, count = values.dtype.type(limit), np.int32(0)
    for index in range(values.size):
        count = np.int32(count + np.int32(values[index] > narrow))
    return np.int64(count)


@numba.njit(cache=True, error_model="numpy")
def thresholds(magnitudes_rc: np.ndarray, k: Integer, limit_r: np.ndarray, ties_r: np.ndarray) -> None:
    """Find a limit for each row of non-negative integers.

    The k largest entries are those above the limit and the first `ties` entries equal to it. Each search step
    counts the entries of a row above a guess. The search ends early when a guess separates exactly k.
    Rows step together, so that the processor overlaps their counts. `limit_r` holds the first guesses, -1
    where unknown; they affect only the time. `limit_r` is overwritten by the limits and `ties_r` by the ties;
    both are int64.
    """
    rows = len(magnitudes_rc)
    state = np.zeros((6, rows), dtype=np.int64)
    low, high, top, surplus, lack, done = state[0], state[1], state[2], state[3], state[4], state[5]
    for row in range(rows):
        magnitudes, largest = magnitudes_rc[row], magnitudes_rc.dtype.type(0)
        for channel in range(magnitudes.size):
            largest = max(largest, magnitudes[channel])
        high[row] = top[row] = largest
        limit_r[row] = min(limit_r[row] if limit_r[row] >= 0 else high[row] // 2, max(0, high[row] - 1))
        surplus[row], lack[row], ties_r[row] = -1, k, 0
    step = left = 1
    while left > 0:
        left = 0
        for row in range(rows):
            if not done[row]:
                ties_r[row] = k - _count_above(magnitudes_rc[row], limit_r[row])
                left += 1
        for row in range(rows):
            missing = ties_r[row]
            # exactly k are above the limit, or it is the least value with at most k above it
            done[row] = missing == 0 or low[row] == high[row]
            if not done[row]:
                if missing < 0:
                    low[row], surplus[row] = limit_r[row] + 1, -missing
                else:
                    high[row], lack[row] = limit_r[row], missing
                limit_r[row] = next_guess(k, low[row], high[row], surplus[row], lack[row], top[row], step)
        step += 1


@numba.njit(cache=True, inline="always")
def next_guess(
    k: Integer, low: Integer, high: Integer, surplus: Integer, lack: Integer, top: Integer, step: Integer
) -> Integer:
    """Return the next value between `low` and `high` at which to count; `low` when none is between.

    `surplus` is the number of entries beyond k above `low` - 1, or -1 if unknown. `lack` is the number by
    which the entries above `high` fall short of k. The first GUESSES steps interpolate, later ones bisect.
    """
    if step > GUESSES:
        guess = low + (high - low) // 2
    elif surplus >= 0:
        guess = low + np.int64((high - low) * surplus / (surplus + lack))
    else:  # extrapolate the density above `high`, further with each step
        guess = np.int64(max(0.0, high - step * lack * ((top - high) / (k - lack + 1))))
    return min(max(guess, low), max(high - 1, low))


@numba.njit(cache=True)
def threshold(magnitudes: np.ndarray, k: Integer) -> tuple[Integer, Integer]:
    """Return the limit and ties of one row (`thresholds`)."""
    limit_r, ties_r = np.full(1, -1), np.zeros(1, dtype=np.int64)
    thresholds(magnitudes.reshape(1, -1), k, limit_r, ties_r)
    return limit_r[0], ties_r[0]


@numba.njit(cache=True, nogil=True)
def _keep_largest_part(
    begin: int, end: int, x_nc: np.ndarray, mask: int, k: int, y_nc: np.ndarray, kept_nc: np.ndarray
) -> None:
    limit_r, ties_r = np.full(ROWS, -1), np.zeros(ROWS, dtype=np.int64)
    for first in range(begin * ROWS, min(len(x_nc), end * ROWS), ROWS):
        y_rc = y_nc[first : first + ROWS]  # holds the magnitudes during the search
        for row in range(len(y_rc)):
            bits, y = x_nc[first + row], y_rc[row]
            for channel in range(bits.size):
                y[channel] = bits[channel] & bits.dtype.type(mask)
        thresholds(y_rc, k, limit_r, ties_r)  # starts from the limits of the previous block
        for row in range(len(y_rc)):
            bits, y, kept = x_nc[first + row], y_rc[row], kept_nc[first + row]
            ties, narrow = ties_r[row], bits.dtype.type(limit_r[row])
            for channel in range(bits.size):
                kept[channel] = y[channel] > narrow
            channel = 0
            while ties > 0:
                tied = y[channel] == narrow
                kept[channel] |= tied
                ties -= tied
                channel += 1
            for channel in range(bits.size):
                y[channel] = bits[channel] if kept[channel] else 0


@numba.njit(cache=True, nogil=True)
def _keep_largest(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_keep_largest_part, threads, size, arguments)


@numba.njit(cache=True, nogil=True)
def _keep_where_part(begin: int, end: int, x_nc: np.ndarray, kept_nc: np.ndarray, y_nc: np.ndarray) -> None:
    for row in range(begin, end):
        x, kept, y = x_nc[row], kept_nc[row], y_nc[row]
        for channel in range(x.size):
            y[channel] = x[channel] if kept[channel] else 0


@numba.njit(cache=True, nogil=True)
def _keep_where(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_keep_where_part, threads, size, arguments)


register("abs_top_k", serves, abs_top_k)
