"""Projection onto the weight-sparse set, after every optimizer step (Gao et al. 2025, §2.1, App. A.2).

For each tensor of n weights at kept fraction f:
1. the j largest magnitudes of every neuron or attention channel stay ("at least j");
2. the largest of the others fill up to round(f · n);
3. all else becomes zero. Equal magnitudes: the lower index stays.
"""

from collections.abc import Iterable

import numba
import numpy as np
import torch
from torch import Tensor, nn

from sparsity_lab.model.kernels import Integer, float_bits, magnitude_bits, next_guess, threshold

SAMPLE = 2048


def kept_count(numel: int, fraction: float, channels: int, at_least: int) -> int:
    """How many weights of a tensor stay: round(f · n), or what `at_least` in each channel needs, if more."""
    return min(numel, max(round(fraction * numel), channels * at_least))


def fraction_for(weights: Iterable[tuple[nn.Parameter, int | None]], nonzeros: int) -> float:
    """The kept fraction at which a model has about `nonzeros` nonzero weights before at-least-j adds any."""
    return min(1.0, nonzeros / sum(weight.numel() for weight, _ in weights))


@torch.no_grad()
def project(weight: Tensor, fraction: float, axis: int | None = None, at_least: int = 0) -> None:
    """Zero all of `weight` but what stays at kept `fraction`, in place.

    `axis` counts the neurons or channels that keep `at_least` weights each (at most what they have); None
    guards none.
    """
    if fraction >= 1:
        return
    channels = 1 if axis is None else weight.shape[axis]
    at_least = 0 if axis is None else min(at_least, weight.numel() // channels)
    keep = kept_count(weight.numel(), fraction, channels, at_least)
    if weight.device.type == "cpu":
        contiguous = weight.contiguous()
        bits = float_bits(contiguous).view(1 if axis is None else len(weight), -1).numpy()
        _project(bits, np.iinfo(bits.dtype).max, keep, at_least, axis or 0)
        if contiguous is not weight:
            weight.copy_(contiguous)
        return
    by_channel = weight.view(1, -1) if axis is None else weight.movedim(axis, 0).flatten(1)
    by_channel = by_channel.masked_fill(~kept_reference(by_channel, keep, at_least), 0)
    weight.copy_(by_channel.view_as(weight) if axis is None else by_channel.movedim(0, axis))


def kept_reference(weight_cn: Tensor, keep: int, at_least: int) -> Tensor:
    """Boolean (channel, n): which `keep` weights stay, `at_least` of them in each row; for any device."""
    magnitude_cn = magnitude_bits(weight_cn)
    first_cn = magnitude_cn.sort(dim=-1, descending=True, stable=True).indices[:, :at_least]
    kept_cn = torch.zeros_like(magnitude_cn, dtype=torch.bool).scatter_(-1, first_cn, True)
    rest = magnitude_cn.masked_fill(kept_cn, -1).flatten()
    order = rest.sort(descending=True, stable=True).indices[: keep - at_least * len(weight_cn)]
    kept_cn.view(-1)[order] = True
    return kept_cn


@numba.njit(cache=True)
def _project(bits_rc: np.ndarray, mask: int, keep: int, at_least: int, axis: int) -> None:
    """As `project`, on the floats' bit patterns."""
    above_c = np.empty(bits_rc.shape[axis], dtype=np.int32)
    limit = _limit(bits_rc, mask, keep, at_least, axis, above_c)
    if limit == 0:
        return  # what would be dropped is zero
    flat = bits_rc.reshape(-1)
    guarded = _largest_of_channels(bits_rc, mask, at_least, axis, above_c)
    saved = flat[guarded]
    flat[guarded] = 0  # the least of all, and not tied with others
    ties = keep
    for channel in range(above_c.size):
        ties -= max(at_least, int(above_c[channel]))
    tied = _first_equal(bits_rc, mask, limit, ties, axis)
    tied_bits = flat[tied]
    narrow = flat.dtype.type(limit)
    for index in range(flat.size):
        flat[index] = flat[index] if (flat[index] & flat.dtype.type(mask)) > narrow else 0
    flat[tied] = tied_bits
    flat[guarded] = saved


@numba.njit(cache=True)
def _limit(
    bits_rc: np.ndarray, mask: int, keep: int, at_least: int, axis: int, above_c: np.ndarray
) -> Integer:
    """The least limit above which no more than `keep` stay, if each channel has `at_least` in any case.

    A search as `threshold`'s, by passes over the weight that fill `above_c`. A sample tells where to begin.
    """
    flat, narrow = bits_rc.reshape(-1), bits_rc.dtype.type(mask)
    sample = flat[:: (flat.size // SAMPLE) | 1] & narrow  # an odd stride meets all columns
    middle = threshold(sample, keep * sample.size // flat.size)[0]
    low: Integer = 0
    high: Integer = mask
    step, surplus, lack = 0, -1, keep - at_least * above_c.size
    while True:
        step += 1
        missing = keep - _kept_above(bits_rc, mask, middle, at_least, axis, above_c)
        if missing == 0 or low == high:
            break
        if missing < 0:
            low, surplus = middle + 1, -missing
        else:
            high, lack = middle, missing
        middle = next_guess(keep, low, high, surplus, lack, mask, step)
    return middle


@numba.njit(cache=True)
def _kept_above(
    bits_rc: np.ndarray, mask: int, limit: Integer, at_least: int, axis: int, above_c: np.ndarray
) -> Integer:
    """How many weights stay at this limit: of each channel what is above, or `at_least`. Fills `above_c`."""
    narrow, least = bits_rc.dtype.type(mask), bits_rc.dtype.type(limit)
    above_c[:] = 0
    for row in range(bits_rc.shape[0]):
        bits = bits_rc[row]
        if axis == 0:
            count = np.int32(0)
            for column in range(bits.size):
                count = np.int32(count + np.int32((bits[column] & narrow) > least))
            above_c[row] = count
        else:
            for column in range(bits.size):
                above_c[column] += np.int32((bits[column] & narrow) > least)
    kept = 0
    for channel in range(above_c.size):
        kept += max(at_least, int(above_c[channel]))
    return kept


@numba.njit(cache=True)
def _largest_of_channels(
    bits_rc: np.ndarray, mask: int, at_least: int, axis: int, above_c: np.ndarray
) -> np.ndarray:
    """Flat positions of the `at_least` largest of channels with fewer above; of equals the lower index."""
    poor = np.flatnonzero(above_c < at_least)
    best = np.empty(at_least, dtype=bits_rc.dtype)
    where = np.zeros((poor.size, at_least), dtype=np.int64)
    for number, channel in enumerate(poor):
        best[:] = -1
        for index in range(bits_rc.shape[1 - axis]):
            row, column = (channel, index) if axis == 0 else (index, channel)
            magnitude = bits_rc[row, column] & bits_rc.dtype.type(mask)
            if magnitude > best[at_least - 1]:
                place = at_least - 1
                while place > 0 and magnitude > best[place - 1]:
                    best[place], where[number, place] = best[place - 1], where[number, place - 1]
                    place -= 1
                best[place], where[number, place] = magnitude, row * bits_rc.shape[1] + column
    return where.reshape(-1)


@numba.njit(cache=True)
def _first_equal(bits_rc: np.ndarray, mask: int, limit: Integer, ties: Integer, axis: int) -> np.ndarray:
    """Flat positions of the first `ties` magnitudes that equal `limit`, in the order of the channels."""
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
