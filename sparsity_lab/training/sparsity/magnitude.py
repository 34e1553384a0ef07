"""Projection onto the weight-sparse set, after every optimizer step (Gao et al. 2025, §2.1, App. A.2).

For each tensor of n weights at kept fraction f:
1. the j largest magnitudes of every neuron or attention channel stay ("at least j");
2. the largest of the others fill up to round(f · n);
3. all else becomes zero. Equal magnitudes: the lower index stays.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.ops import magnitude_bits


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
    if kernel := kernel_for("projection", weight, keep, at_least, axis):
        kernel(weight, keep, at_least, axis)
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
