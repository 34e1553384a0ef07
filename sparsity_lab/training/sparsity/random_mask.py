"""Sparsity method `random_mask`: a fixed random mask, drawn from the seed before training.

It is the baseline for methods that choose their weights. Each tensor keeps as many weights as magnitude
projection keeps at the same kept fraction, including the at-least-j rule. All other weights are zero from the
start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.training.sparsity.magnitude import project
from sparsity_lab.training.sparsity.sparsifier import BudgetConfig

if TYPE_CHECKING:
    from torch import Tensor

    from sparsity_lab.model.transformer import Transformer


class Config(BudgetConfig):
    kind: Literal["random_mask"] = "random_mask"

    @property
    def label(self) -> str:
        return f"random-{super().label}"


class RandomMask:
    """Zeroes all weights outside `masks`, which maps weight names to boolean tensors."""

    def __init__(self, masks: dict[str, Tensor], fraction: float) -> None:
        self.masks, self.fraction = masks, fraction

    def kept_fraction(self, step: int) -> float:
        return self.fraction

    def after_step(self, model: Transformer, step: int) -> None:
        weights = model.sparse_weights()
        for name in self.masks:
            weight, _ = weights[name]
            mask = self.masks[name] = self.masks[name].to(weight.device)
            weight.data.masked_fill_(~mask, 0)


def make(config: Config, model: Transformer, n_steps: int, seed: int) -> RandomMask:
    """Draw the masks and apply them to `model`."""
    weights = config.weights(model)
    fraction = config.final_fraction(sum(weight.numel() for weight, _ in weights.values()))
    masks = {
        name: draw_mask(weight, fraction, axis, config.at_least, derive_seed(seed, name))
        for name, (weight, axis) in weights.items()
    }
    sparsifier = RandomMask(masks, fraction)
    sparsifier.after_step(model, 0)
    return sparsifier


def draw_mask(weight: Tensor, fraction: float, axis: int | None, at_least: int, seed: int) -> Tensor:
    """Draw a boolean mask in the shape of `weight`, by projecting random scores."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    scores = 1 + torch.rand(weight.shape, generator=generator)  # never zero, which means dropped
    project(scores, fraction, axis, at_least)
    return scores != 0
