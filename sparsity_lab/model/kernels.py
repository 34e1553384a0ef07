"""Selecting the largest magnitudes: AbsTopK along the channel axis, and the thresholds that projection uses.

Magnitudes are compared by the bit pattern of |x| read as an integer, which orders floats exactly; among
equals the lower index wins, and NaN counts as larger than infinity, so that it is seen and not hidden. The
reference is plain PyTorch and runs anywhere; on a CPU a numba kernel bisects on the bits and selects the
same entries.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

# numba's OpenMP layer and torch's set each other's number of threads, and then wait for cores that are busy:
# ten times slower. Its own layer keeps to itself; it must not be entered from two Python threads at once, and
# nothing here does.
numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

Integer = int | np.integer  # numba makes 64-bit numbers of both
_INTEGER = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}


def magnitude_bits(x: Tensor) -> Tensor:
    """|x| as integers of the same width, in the same order; NaN is above infinity."""
    bits = _bits(x)
    return bits & torch.iinfo(bits.dtype).max


def largest_reference(x_nc: Tensor, k: int) -> Tensor:
    """Boolean (n, c) tensor that is true at the k largest magnitudes of each row."""
    order_nk = magnitude_bits(x_nc).sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return torch.zeros(x_nc.shape, dtype=torch.bool, device=x_nc.device).scatter_(-1, order_nk, True)


def abs_top_k(x: Tensor, k: int) -> Tensor:
    """Keep the k entries of largest magnitude along the last axis and zero the rest (§2.1).

    The gradient passes through the kept entries alone. `k` at or above the width returns `x` itself.
    """
    if k >= x.shape[-1]:
        return x
    return _AbsTopK.apply(x.reshape(-1, x.shape[-1]), k).view(x.shape)


class _AbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nc: Tensor, k: int) -> Tensor:
        if x_nc.device.type != "cpu":
            kept_nc = largest_reference(x_nc, k)
            y_nc = torch.where(kept_nc, x_nc, 0)
        else:
            x_nc = x_nc.detach().contiguous()
            y_nc, kept_nc = torch.empty_like(x_nc), torch.empty(x_nc.shape, dtype=torch.bool)
            use_torch_threads()
            mask = torch.iinfo(_INTEGER[x_nc.dtype]).max
            _keep_largest(_bits(x_nc).numpy(), mask, k, _bits(y_nc).numpy(), kept_nc.numpy())
        ctx.save_for_backward(kept_nc)
        return y_nc

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept_nc,) = ctx.saved_tensors
        if kept_nc.device.type != "cpu":
            return torch.where(kept_nc, grads[0], 0), None
        grad_nc = grads[0].contiguous()
        out_nc = torch.empty_like(grad_nc)
        use_torch_threads()
        _keep_where(_bits(grad_nc).numpy(), kept_nc.numpy(), _bits(out_nc).numpy())
        return out_nc, None


def _bits(x: Tensor) -> Tensor:
    return x.detach().contiguous().view(_INTEGER[x.dtype])


def use_torch_threads() -> None:
    """Give numba's parallel loops as many threads as torch may use."""
    available: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(torch.get_num_threads(), available))


@numba.njit(cache=True, inline="always")
def _count_above(values: np.ndarray, limit: Integer) -> Integer:
    # compared in the values' own width and counted in 32 bits, LLVM uses whole vectors: three times faster
    narrow, count = values.dtype.type(limit), np.int32(0)
    for index in range(values.size):
        count = np.int32(count + np.int32(values[index] > narrow))
    return count


@numba.njit(cache=True)
def threshold(magnitudes: np.ndarray, k: Integer) -> tuple[Integer, Integer]:
    """(t, ties): the k largest of the non-negative integers are those above t and the first `ties` at t.

    Bisects on the value, one count over the row a step, and stops early where a value separates exactly k.
    """
    low, high = np.int64(magnitudes.min()), np.int64(magnitudes.max())
    while low < high:
        middle = low + (high - low) // 2
        count = _count_above(magnitudes, middle)
        if count == k:
            return middle, 0
        if count > k:
            low = middle + 1
        else:
            high = middle
    return low, k - _count_above(magnitudes, low)


@numba.njit(cache=True, parallel=True)
def _keep_largest(x_nc: np.ndarray, mask: int, k: int, y_nc: np.ndarray, kept_nc: np.ndarray) -> None:
    for row in numba.prange(x_nc.shape[0]):
        bits = x_nc[row]
        magnitudes = bits & bits.dtype.type(mask)
        limit, ties = threshold(magnitudes, k)
        narrow = bits.dtype.type(limit)
        for channel in range(bits.size):
            kept = magnitudes[channel] > narrow
            kept_nc[row, channel] = kept
            y_nc[row, channel] = bits[channel] if kept else 0
        if ties > 0:
            for channel in range(bits.size):
                if ties > 0 and magnitudes[channel] == narrow:
                    kept_nc[row, channel] = True
                    y_nc[row, channel] = bits[channel]
                    ties -= 1


@numba.njit(cache=True, parallel=True)
def _keep_where(x_nc: np.ndarray, kept_nc: np.ndarray, y_nc: np.ndarray) -> None:
    for row in numba.prange(x_nc.shape[0]):
        for channel in range(x_nc.shape[1]):
            y_nc[row, channel] = x_nc[row, channel] if kept_nc[row, channel] else 0
