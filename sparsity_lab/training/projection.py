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

from sparsity_lab.model.kernels import Integer, float_bits, magnitude_bits, threshold

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
    """As `project`, on the floats' bit patterns: four passes over the weight, whatever the kept fraction."""
    flat = bits_rc.reshape(-1)
    guarded = _largest_of_channels(bits_rc, mask, at_least, axis)
    saved = flat[guarded]
    flat[guarded] = 0  # the least of all: so the rest is selected among the others
    limit, ties = _threshold_of_many(flat, mask, keep - guarded.size)
    tied = _first_equal(bits_rc, mask, limit, ties, axis)
    tied_bits = flat[tied]
    narrow = flat.dtype.type(limit)
    for index in range(flat.size):
        flat[index] = flat[index] if (flat[index] & flat.dtype.type(mask)) > narrow else 0
    flat[tied] = tied_bits
    flat[guarded] = saved


@numba.njit(cache=True)
def _largest_of_channels(bits_rc: np.ndarray, mask: int, at_least: int, axis: int) -> np.ndarray:
    """Flat positions of the `at_least` largest of each channel; of equals the lower index."""
    channels = bits_rc.shape[axis]
    best = np.full((at_least + 1, channels), -1, dtype=bits_rc.dtype)  # the last row takes what falls out
    where = np.zeros((at_least + 1, channels), dtype=np.int64)
    if at_least == 0:
        return where[0, :0]
    for row in range(bits_rc.shape[0]):
        for column in range(bits_rc.shape[1]):
            channel = row if axis == 0 else column
            magnitude = bits_rc[row, column] & bits_rc.dtype.type(mask)
            if magnitude > best[at_least - 1, channel]:
                place = at_least - 1
                while place > 0 and magnitude > best[place - 1, channel]:
                    best[place, channel] = best[place - 1, channel]
                    where[place, channel] = where[place - 1, channel]
                    place -= 1
                best[place, channel] = magnitude
                where[place, channel] = row * bits_rc.shape[1] + column
    return where[:at_least].copy().reshape(-1)


@numba.njit(cache=True)
def _threshold_of_many(bits: np.ndarray, mask: int, k: int) -> tuple[Integer, Integer]:
    """`threshold` of the magnitudes of many numbers, mostly in one pass.

    A sample says between which two values the limit must lie; a pass counts what is above and gathers what is
    between, and the limit is chosen among those. Where the sample misleads, the whole is searched.
    """
    narrow = bits.dtype.type(mask)
    if k <= 0:
        return mask, 0
    if bits.size > 4 * SAMPLE:
        sample = bits[:: (bits.size // SAMPLE) | 1] & narrow  # an odd stride meets all columns
        share = k / bits.size
        middle = share * sample.size
        margin = 4 * np.sqrt(sample.size * share * (1 - share)) + 8
        low: Integer = np.int64(0)
        high: Integer = np.int64(mask)
        if middle + margin < sample.size:
            low = threshold(sample, np.int64(middle + margin))[0]
        if middle - margin >= 1:
            high = threshold(sample, np.int64(middle - margin))[0]
        between = np.empty(bits.size // 2, dtype=bits.dtype)
        above, found = _gather_between(bits, narrow, bits.dtype.type(low), bits.dtype.type(high), between)
        if above < k <= above + found:
            return threshold(between[:found], k - above)
    return threshold(bits & narrow, k)


@numba.njit(cache=True)
def _gather_between(bits: np.ndarray, mask: int, low: int, high: int, between: np.ndarray) -> tuple[int, int]:
    """How many magnitudes are above `high`, and those in [low, high], as many as `between` takes."""
    above = found = 0
    last = between.size - 1
    for index in range(bits.size):
        magnitude = bits[index] & mask
        above += magnitude > high
        between[found] = magnitude  # without a branch: what is not between is written over
        found += (magnitude >= low) & (magnitude <= high) & (found < last)
    return above, found if found < last else 0


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
