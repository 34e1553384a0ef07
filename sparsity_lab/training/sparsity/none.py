"""Sparsity method `none`: all weights may be nonzero. Dense models are trained this way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig

if TYPE_CHECKING:
    from sparsity_lab.model.transformer import Transformer


class Config(SparsifierConfig):
    kind: Literal["none"] = "none"

    @property
    def is_sparse(self) -> bool:
        return False

    @property
    def label(self) -> str:
        return ""


class AllWeights:
    """Leaves the weights unchanged after each optimizer step."""

    def kept_fraction(self, step: int) -> float:
        return 1.0

    def after_step(self, model: Transformer, step: int) -> None:
        pass


def make(config: Config, model: Transformer, n_steps: int, seed: int) -> AllWeights:
    return AllWeights()
