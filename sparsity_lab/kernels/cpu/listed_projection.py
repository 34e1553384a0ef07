"""Projection of a listed weight on a CPU: the largest of its listed values stay, by a search on bits.

It keeps what `projection.py` keeps of the whole weight, whose other entries are zero. It reads the list only.
"""

import numba
import numpy as np
from torch import Tensor

from sparsity_lab.kernels.cpu.projection import SAMPLE
from sparsity_lab.kernels.cpu.top_k import Integer, next_guess, threshold
from sparsity_lab.model.dispatch import register
from sparsity_lab.model.listing import Listing
from sparsity_lab.model.ops import float_bits

MASK = np.iinfo(np.int32).max


def serves(values_n: Tensor) -> bool:
    """Accept the values of a listing on a CPU."""
    return values_n.device.type == "cpu"


def project(listing: Listing, keep: int, at_least: int, axis: int | None, channels: int) -> None:
    """Keep the `keep` largest values, at least `at_least` per channel of `axis`; set the rest to zero.

    There are `channels` rows (axis 0) or columns (axis 1); without an axis, the whole weight is one channel.

    Raises:
        ValueError: `keep` is below what the channels need.
    """
    if channels * at_least > keep:
        raise ValueError(f"keep {keep} weights, {at_least} in each of {channels} channels")
    bits_n = float_bits(listing.values_n).numpy()
    starts, columns_n = listing.starts.numpy(), listing.columns_n.numpy()
    project_bits(bits_n, starts, columns_n, keep, at_least, 2 if axis is None else axis, channels)


@numba.njit(cache=True, nogil=True)
def project_bits(
    bits_n: np.ndarray,
    starts: np.ndarray,
    columns_n: np.ndarray,
    keep: int,
    at_least: int,
    axis: int,
    channels: int,
) -> None:
    """Apply `project` to the bit patterns; axis 2 stands for no axis."""
    if bits_n.size == 0:
        return
    magnitude_n, channel_n = bits_n & np.int32(MASK), _channels(starts, columns_n, axis)
    above_c = np.zeros(channels, dtype=np.int64)
    limit = _limit(magnitude_n, channel_n, keep, at_least, above_c)
    guarded = _largest(magnitude_n, channel_n, above_c, at_least)
    stays_n = magnitude_n > np.int32(limit)
    stays_n[guarded] = True
    ties = keep
    for channel in range(channels):
        ties -= max(at_least, above_c[channel])
    if ties > 0:
        tied = np.flatnonzero((magnitude_n == np.int32(limit)) & ~stays_n)
        order = np.argsort(channel_n[tied], kind="mergesort")
        stays_n[tied[order[:ties]]] = True
    for n in range(bits_n.size):
        bits_n[n] = bits_n[n] if stays_n[n] else np.int32(0)


@numba.njit(cache=True)
def _channels(starts: np.ndarray, columns_n: np.ndarray, axis: int) -> np.ndarray:
    """Return the channel of each entry."""
    if axis == 1:
        return columns_n
    channel_n = np.zeros_like(columns_n)
    if axis == 0:
        for row in range(starts.size - 1):
            channel_n[starts[row] : starts[row + 1]] = row
    return channel_n


@numba.njit(cache=True)
def _limit(
    magnitude_n: np.ndarray, channel_n: np.ndarray, keep: int, at_least: int, above_c: np.ndarray
) -> Integer:
    """Return the least limit that keeps at most `keep` values, counting at least `at_least` per channel.

    `above_c` is set to the number of values above it. The search is that of `projection._limit`.
    """
    sample = magnitude_n[:: (magnitude_n.size // SAMPLE) | 1].copy()
    middle = threshold(sample, min(sample.size, keep * sample.size // magnitude_n.size))[0]
    low: Integer = 0
    high: Integer = MASK
    step, surplus, lack = 0, -1, keep - at_least * above_c.size
    while True:
        step += 1
        above_c[:] = 0
        narrow = np.int32(middle)
        for n in range(magnitude_n.size):
            above_c[channel_n[n]] += magnitude_n[n] > narrow
        missing = keep
        for channel in range(above_c.size):
            missing -= max(at_least, above_c[channel])
        if missing == 0 or low == high:
            break
        if missing < 0:
            low, surplus = middle + 1, -missing
        else:
            high, lack = middle, missing
        middle = next_guess(keep, low, high, surplus, lack, MASK, step)
    return middle


@numba.njit(cache=True)
def _largest(
    magnitude_n: np.ndarray, channel_n: np.ndarray, above_c: np.ndarray, at_least: int
) -> np.ndarray:
    """Find the `at_least` largest values of each channel with fewer above the limit; the first win ties."""
    poor_c = np.full(above_c.size, -1)
    count = 0
    for channel in range(above_c.size):
        if above_c[channel] < at_least:
            poor_c[channel] = count
            count += 1
    best, where = np.full((count, at_least), -1), np.full((count, at_least), -1)
    for n in range(magnitude_n.size):
        poor = poor_c[channel_n[n]]
        if poor >= 0 and magnitude_n[n] > best[poor, at_least - 1]:
            place = at_least - 1
            while place > 0 and magnitude_n[n] > best[poor, place - 1]:
                best[poor, place], where[poor, place] = best[poor, place - 1], where[poor, place - 1]
                place -= 1
            best[poor, place], where[poor, place] = magnitude_n[n], n
    found = where.reshape(-1)
    return found[found >= 0]


register("listed_projection", serves, project)
