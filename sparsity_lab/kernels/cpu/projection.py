"""Projection to the largest weights on a CPU, by a search on bits (`training/sparsity/magnitude.py`)."""

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import parallel_for
from sparsity_lab.kernels.cpu.top_k import Integer, next_guess, threshold
from sparsity_lab.model.dispatch import register
from sparsity_lab.model.ops import float_bits

SAMPLE = 2048  # weights that give the search its first guess


def serves(weight: Tensor, keep: int, at_least: int, axis: int | None) -> bool:
    """Accept every float type on a CPU."""
    return weight.device.type == "cpu"


def project(weight: Tensor, keep: int, at_least: int, axis: int | None) -> None:
    """Keep the `keep` largest entries of `weight`, at least `at_least` per channel of `axis`; zero the rest.

    Raises:
        ValueError: `keep` exceeds the number of weights, or is below what the channels need.
    """
    channels = 1 if axis is None else weight.shape[axis]
    if not channels * at_least <= keep <= weight.numel():
        raise ValueError(f"keep {keep} of {weight.numel()} weights, {at_least} in each channel")
    contiguous = weight.contiguous()
    rows = float_bits(contiguous).view(1 if weight.dim() < 2 else len(weight), -1).numpy()
    project_bits(torch.get_num_threads(), rows, np.iinfo(rows.dtype).max, keep, at_least, axis or 0)
    if contiguous is not weight:
        weight.copy_(contiguous)


@numba.njit(cache=True, nogil=True)
def project_bits(threads: int, bits_rc: np.ndarray, mask: int, keep: int, at_least: int, axis: int) -> None:
    """Apply `project` to the bit patterns. Weights are counted per channel even if `at_least` is 0."""
    above_c = np.empty(bits_rc.shape[axis], dtype=np.int32)
    limit = _limit(threads, bits_rc, mask, keep, at_least, axis, above_c)
    if limit == 0:
        return  # every weight that would be dropped is already zero
    flat = bits_rc.reshape(-1)
    poor = np.flatnonzero(above_c < at_least)
    largest = np.empty((poor.size, at_least), dtype=np.int64)
    parallel_for(_largest_part, threads, poor.size, (bits_rc, mask, axis, poor, largest))
    guarded = largest.reshape(-1)
    saved = flat[guarded]
    flat[guarded] = 0  # below every limit, so never tied
    tied = _first_equal(bits_rc, mask, limit, keep - _kept(above_c, at_least), axis)
    tied_bits = flat[tied]
    parallel_for(_drop_part, threads, flat.size, (flat, mask, limit))
    flat[tied] = tied_bits
    flat[guarded] = saved


@numba.njit(cache=True)
def _limit(
    threads: int, bits_rc: np.ndarray, mask: int, keep: int, at_least: int, axis: int, above_c: np.ndarray
) -> Integer:
    """Return the least limit that keeps at most `keep` weights, counting at least `at_least` per channel.

    The search is that of `thresholds`. Each step is a pass over the weight that fills `above_c`. A sample of
    the weights gives the first guess.
    """
    flat, narrow = bits_rc.reshape(-1), bits_rc.dtype.type(mask)
    sample = flat[:: (flat.size // SAMPLE) | 1] & narrow  # an odd stride samples all columns
    middle = threshold(sample, keep * sample.size // flat.size)[0]
    low: Integer = 0
    high: Integer = mask
    step, surplus, lack = 0, -1, keep - at_least * above_c.size
    while True:
        step += 1
        parallel_for(_count_part, threads, above_c.size, (bits_rc, mask, middle, axis, above_c))
        missing = keep - _kept(above_c, at_least)
        if missing == 0 or low == high:
            break
        if missing < 0:
            low, surplus = middle + 1, -missing
        else:
            high, lack = middle, missing
        middle = next_guess(keep, low, high, surplus, lack, mask, step)
    return middle


@numba.njit(cache=True)
def _kept(above_c: np.ndarray, at_least: int) -> int:
    """Count the weights that stay: per channel those above the limit, or `at_least` if they are fewer."""
    kept = 0
    for channel in range(above_c.size):
        kept += max(at_least, int(above_c[channel]))
    return kept


@numba.njit(cache=True, nogil=True)
def _count_part(
    begin: int, end: int, bits_rc: np.ndarray, mask: int, limit: Integer, axis: int, above_c: np.ndarray
) -> None:
    """Count the weights of each channel that are above the limit."""
    narrow, least = bits_rc.dtype.type(mask), bits_rc.dtype.type(limit)
    if axis == 0:
        for row in range(begin, end):
            bits, count = bits_rc[row], np.int32(0)
            for column in range(bits.size):
                count = np.int32(count + np.int32((bits[column] & narrow) > least))
            above_c[row] = count
    else:
        counts = above_c[begin:end]
        counts[:] = 0
        for row in range(bits_rc.shape[0]):
            bits = bits_rc[row, begin:end]
            for column in range(bits.size):
                counts[column] += np.int32((bits[column] & narrow) > least)


@numba.njit(cache=True, nogil=True)
def _largest_part(
    begin: int,
    end: int,
    bits_rc: np.ndarray,
    mask: int,
    axis: int,
    channels: np.ndarray,
    largest: np.ndarray,
) -> None:
    """Find the flat positions of the largest weights of some channels; the lower index wins ties."""
    at_least = largest.shape[1]
    best = np.empty(at_least, dtype=bits_rc.dtype)
    for number in range(begin, end):
        channel, where = channels[number], largest[number]
        best[:] = -1
        for index in range(bits_rc.shape[1 - axis]):
            row, column = (channel, index) if axis == 0 else (index, channel)
            magnitude = bits_rc[row, column] & bits_rc.dtype.type(mask)
            if magnitude > best[at_least - 1]:
                place = at_least - 1
                while place > 0 and magnitude > best[place - 1]:
                    best[place], where[place] = best[place - 1], where[place - 1]
                    place -= 1
                best[place], where[place] = magnitude, row * bits_rc.shape[1] + column


@numba.njit(cache=True, nogil=True)
def _drop_part(begin: int, end: int, flat: np.ndarray, mask: int, limit: Integer) -> None:
    """Zero the weights that are not above the limit."""
    bits, narrow, least = flat[begin:end], flat.dtype.type(mask), flat.dtype.type(limit)
    for index in range(bits.size):
        bits[index] = bits[index] if (bits[index] & narrow) > least else 0


@numba.njit(cache=True)
def _first_equal(bits_rc: np.ndarray, mask: int, limit: Integer, ties: Integer, axis: int) -> np.ndarray:
    """Find the flat positions of the first `ties` magnitudes equal to `limit`, in channel order."""
    found = np.zeros(ties, dtype=np.int64)
    count = 0
    if ties == 0:
        return found
    for channel in range(bits_rc.shape[axis]):
        for index in range(bits_rc.shape[1 - axis]):
            row, column = (channel, index) if axis == 0 else (index, channel)
            if (bits_rc[row, column] & bits_rc.dtype.type(mask)) == limit:
                found[count] = row * bits_rc.shape[1] + column
                count += 1
                if count == ties:
                    return found
    return found


register("projection", serves, project)
