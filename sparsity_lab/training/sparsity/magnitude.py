"""Magnitude pruning during training: projection after every step (Gao et al. 2025, §2.1, App. A.2).

The kept fraction f falls linearly from 1 to its final value. After each step, for each tensor of n weights:
1. In the six matrices of a layer, every neuron or attention channel keeps its j largest magnitudes ("at least
   j"). Biases and embeddings have no such guarantee.
2. The largest remaining magnitudes are kept until round(f · n) weights are kept in total. Step 1 may already
   keep more.
3. All other weights become zero. Among equal magnitudes, the lower index is kept.

There is no persistent mask. AdamW also updates zero weights, so a dropped weight may return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.training.sparsity.sparsifier import BudgetConfig, ShareOfTraining

if TYPE_CHECKING:
    from torch import Tensor

    from sparsity_lab.model.transformer import Transformer


class Config(BudgetConfig):
    """Settings of magnitude pruning.

    `anneal_until`: fraction of training over which the kept fraction falls from 1 to its final value.
    """

    kind: Literal["magnitude"] = "magnitude"
    anneal_until: ShareOfTraining = 0.5


class Magnitude:
    """Projects the weights of one model after every step."""

    def __init__(self, config: Config, model: Transformer, n_steps: int) -> None:
        self.config, self.n_steps = config, n_steps
        total = sum(weight.numel() for weight, _ in config.weights(model).values())
        self.final_fraction = config.final_fraction(total)

    def kept_fraction(self, step: int) -> float:
        return kept_fraction(step / self.n_steps, self.final_fraction, self.config.anneal_until)

    def after_step(self, model: Transformer, step: int) -> None:
        kept = self.kept_fraction(step)
        for weight, axis in self.config.weights(model).values():
            project(weight, kept, axis, self.config.at_least)


def make(config: Config, model: Transformer, n_steps: int, seed: int) -> Magnitude:
    return Magnitude(config, model, n_steps)


def project(weight: Tensor, fraction: float, axis: int | None = None, at_least: int = 0) -> None:
    """Zero the weights that are not kept at kept fraction `fraction`, in place.

    `axis` indexes the neurons or channels that each keep `at_least` weights, or all if they have fewer. None
    applies no such guarantee.
    """
    if fraction >= 1:
        return
    channels = 1 if axis is None else weight.shape[axis]
    at_least = 0 if axis is None else min(at_least, weight.numel() // channels)
    keep = kept_count(weight.numel(), fraction, channels, at_least)
    weight = weight.detach()  # shares memory and allows in-place writes
    if kernel := kernel_for("projection", weight, keep, at_least, axis):
        kernel(weight, keep, at_least, axis)
        return
    by_channel = weight.view(1, -1) if axis is None else weight.movedim(axis, 0).flatten(1)
    by_channel = by_channel.masked_fill(~kept_weights(by_channel, keep, at_least), 0)
    weight.copy_(by_channel.view_as(weight) if axis is None else by_channel.movedim(0, axis))


def kept_weights(weight_cn: Tensor, keep: int, at_least: int) -> Tensor:
    """Select the `keep` weights that stay, at least `at_least` per row; boolean (channel, n), any device."""
    import torch

    from sparsity_lab.model.ops import magnitude_bits

    magnitude_cn = magnitude_bits(weight_cn)
    first_cn = magnitude_cn.sort(dim=-1, descending=True, stable=True).indices[:, :at_least]
    kept_cn = torch.zeros_like(magnitude_cn, dtype=torch.bool).scatter_(-1, first_cn, True)
    rest = magnitude_cn.masked_fill(kept_cn, -1).flatten()
    order = rest.sort(descending=True, stable=True).indices[: keep - at_least * len(weight_cn)]
    kept_cn.view(-1)[order] = True
    return kept_cn


def kept_fraction(progress: float, final: float, anneal_until: float) -> float:
    """Return the kept fraction: linear from 1 to `final` until `anneal_until` of training, then constant."""
    if anneal_until <= 0:
        return final
    return 1 - (1 - final) * min(progress / anneal_until, 1.0)


def kept_count(numel: int, fraction: float, channels: int, at_least: int) -> int:
    """Return how many weights a tensor keeps: round(f · n), or more if `at_least` per channel needs it."""
    return min(numel, max(round(fraction * numel), channels * at_least))
