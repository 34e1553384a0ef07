"""A sparsity method as a user of the package would write it, in a file of their own: one-shot pruning.

After step `at_step` each tensor keeps its largest magnitudes, a `share` of its weights, for good.
"""

from typing import Literal

import torch
from torch import nn

from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig


class Config(SparsifierConfig):
    kind: Literal["one_shot"] = "one_shot"
    share: float
    at_step: int = 4


class OneShot(nn.Module):
    """The masks are buffers, so that a resumed training has them."""

    def __init__(self, config: Config, model: Transformer) -> None:
        super().__init__()
        self.config = config
        for index, (weight, _) in enumerate(model.sparse_weights().values()):
            self.register_buffer(f"mask{index}", torch.ones_like(weight))

    def kept_fraction(self, step: int) -> float:
        return self.config.share if step >= self.config.at_step else 1.0

    @torch.no_grad()
    def after_step(self, model: Transformer, step: int) -> None:
        for mask, (weight, _) in zip(self.buffers(), model.sparse_weights().values(), strict=True):
            if step == self.config.at_step:
                dropped = weight.numel() - round(self.config.share * weight.numel())
                mask.view(-1)[weight.abs().flatten().argsort(stable=True)[:dropped]] = 0
            weight.masked_fill_(mask == 0, 0)


def make(config: Config, model: Transformer, n_steps: int, seed: int) -> OneShot:
    return OneShot(config, model)
