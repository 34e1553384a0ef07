"""Selecting the largest magnitudes: AbsTopK along the channel axis, and the thresholds that projection uses.

Magnitudes are compared by the bit pattern of |x| read as an integer, which orders floats exactly; among
equals the lower index wins, and NaN counts as larger than infinity, so that it is seen and not hidden. The
reference is plain PyTorch and runs anywhere; a numba kernel on a CPU and a Triton kernel on a GPU search on
the bits and select the same entries.
"""

from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import in_parts, threads_for

Integer = int | np.integer  # numba makes 64-bit numbers of both
GUESSES = 8  # steps of a search that follow the counts; among many equal numbers these say little
ROWS = 16  # searched side by side, each from where one of the rows before ended
_INTEGER = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}


def float_bits(x: Tensor) -> Tensor:
    """The bit patterns of floats as signed integers, of the same memory where `x` is contiguous."""
    return x.detach().contiguous().view(_INTEGER[x.dtype])


def magnitude_bits(x: Tensor) -> Tensor:
    """|x| as integers of the same width, in the same order; NaN is above infinity."""
    bits = float_bits(x)
    return bits & torch.iinfo(bits.dtype).max


def largest_reference(x_nc: Tensor, k: int) -> Tensor:
    """Boolean (n, c) tensor that is true at the k largest magnitudes of each row."""
    order_nk = magnitude_bits(x_nc).sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return torch.zeros(x_nc.shape, dtype=torch.bool, device=x_nc.device).scatter_(-1, order_nk, True)


def abs_top_k(x: Tensor, k: int, implementation: str | None = None) -> Tensor:
    """Keep the k entries of largest magnitude along the last axis and zero the rest (§2.1).

    The gradient passes through the kept entries alone. `k` at or above the width returns `x` itself.
    `implementation`, one of `IMPLEMENTATIONS`, is for tests; all of them keep the same entries.
    """
    if k >= x.shape[-1]:
        return x
    rows_nc = x.reshape(-1, x.shape[-1])
    return _AbsTopK.apply(rows_nc, k, implementation or implementation_for(x.device)).view(x.shape)


def implementation_for(device: torch.device) -> str:
    """The fastest implementation that `device` has here."""
    if device.type == "cpu":
        return "numba"
    return "triton" if device.type == "cuda" and find_spec("triton") is not None else "reference"


def _by_reference(x_nc: Tensor, k: int) -> tuple[Tensor, Tensor]:
    kept_nc = largest_reference(x_nc, k)
    return torch.where(kept_nc, x_nc, 0), kept_nc


def _by_numba(x_nc: Tensor, k: int) -> tuple[Tensor, Tensor]:
    bits_nc = float_bits(x_nc)
    y_nc, kept_nc = torch.empty_like(bits_nc), torch.empty(x_nc.shape, dtype=torch.bool)
    mask, blocks = torch.iinfo(bits_nc.dtype).max, (len(x_nc) + ROWS - 1) // ROWS
    _keep_largest(threads_for(blocks), blocks, bits_nc.numpy(), mask, k, y_nc.numpy(), kept_nc.numpy())
    return y_nc.view(x_nc.dtype), kept_nc


def _by_triton(x_nc: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from sparsity_lab.kernels.gpu.top_k import keep_largest  # only where it is used: Triton starts slowly

    kept_nc = keep_largest(float_bits(x_nc), k)
    return torch.where(kept_nc, x_nc, 0), kept_nc


IMPLEMENTATIONS = {"reference": _by_reference, "numba": _by_numba, "triton": _by_triton}


class _AbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nc: Tensor, k: int, implementation: str) -> Tensor:
        y_nc, kept_nc = IMPLEMENTATIONS[implementation](x_nc.detach(), k)
        ctx.save_for_backward(kept_nc)
        ctx.implementation = implementation
        return y_nc

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (kept_nc,) = ctx.saved_tensors
        if ctx.implementation != "numba":
            return torch.where(kept_nc, grads[0], 0), None, None
        grad_nc = float_bits(grads[0])
        out_nc = torch.empty_like(grad_nc)
        rows = len(grad_nc)
        _keep_where(threads_for(rows), rows, grad_nc.numpy(), kept_nc.numpy(), out_nc.numpy())
        return out_nc.view(grads[0].dtype), None, None


@numba.njit(cache=True, inline="always")
def _count_above(values: np.ndarray, limit: Integer) -> Integer:
    # compared in the values' own width and counted in 32 bits, LLVM uses whole vectors: three times faster
    narrow, count = values.dtype.type(limit), np.int32(0)
    for index in range(values.size):
        count = np.int32(count + np.int32(values[index] > narrow))
    return np.int64(count)


@numba.njit(cache=True, error_model="numpy")
def thresholds(magnitudes_rc: np.ndarray, k: Integer, limit_r: np.ndarray, ties_r: np.ndarray) -> None:
    """For each row of non-negative integers a limit: the k largest are above it and the first `ties` at it.

    A search on the value, one count over the row a step, that stops early where a value separates exactly k.
    Rows take their steps together, so that nothing waits for one row's count. `limit_r` says where to begin,
    -1 if it is not known, which changes the time alone; it is filled, and so is `ties_r`. Both are int64.
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
            # none are missing, or it was counted at the least value that leaves no more than k
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
    """Where between `low` and `high` to count next, and `low` once there is nothing between.

    `surplus`: how many more than k are above the value before `low`, -1 if that is not known; `lack`: how
    many fewer are above `high`. It goes where these say that k lies, and after GUESSES steps to the middle.
    """
    if step > GUESSES:
        guess = low + (high - low) // 2
    elif surplus >= 0:
        guess = low + np.int64((high - low) * surplus / (surplus + lack))
    else:  # as dense there as above, and then denser
        guess = np.int64(max(0.0, high - step * lack * ((top - high) / (k - lack + 1))))
    return min(max(guess, low), max(high - 1, low))


@numba.njit(cache=True)
def threshold(magnitudes: np.ndarray, k: Integer) -> tuple[Integer, Integer]:
    """The limit and ties of one row (`thresholds`)."""
    limit_r, ties_r = np.full(1, -1), np.zeros(1, dtype=np.int64)
    thresholds(magnitudes.reshape(1, -1), k, limit_r, ties_r)
    return limit_r[0], ties_r[0]


@numba.njit(cache=True, nogil=True)
def _keep_largest_part(
    begin: int, end: int, x_nc: np.ndarray, mask: int, k: int, y_nc: np.ndarray, kept_nc: np.ndarray
) -> None:
    limit_r, ties_r = np.full(ROWS, -1), np.zeros(ROWS, dtype=np.int64)
    for first in range(begin * ROWS, min(len(x_nc), end * ROWS), ROWS):
        y_rc = y_nc[first : first + ROWS]  # holds the magnitudes until they have been searched
        for row in range(len(y_rc)):
            bits, y = x_nc[first + row], y_rc[row]
            for channel in range(bits.size):
                y[channel] = bits[channel] & bits.dtype.type(mask)
        thresholds(y_rc, k, limit_r, ties_r)  # each from where the block before ended
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
    in_parts(_keep_largest_part, threads, size, arguments)


@numba.njit(cache=True, nogil=True)
def _keep_where_part(begin: int, end: int, x_nc: np.ndarray, kept_nc: np.ndarray, y_nc: np.ndarray) -> None:
    for row in range(begin, end):
        x, kept, y = x_nc[row], kept_nc[row], y_nc[row]
        for channel in range(x.size):
            y[channel] = x[channel] if kept[channel] else 0


@numba.njit(cache=True, nogil=True)
def _keep_where(threads: int, size: int, *arguments: Any) -> None:
    in_parts(_keep_where_part, threads, size, arguments)
