"""The contract of a sparsity method: a config, and a sparsifier that acts after every optimizer step.

Importing this module does not import torch, so that configs can be read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pydantic import NonNegativeInt, PositiveInt, field_validator, model_validator

from sparsity_lab.core.config import Config
from sparsity_lab.core.errors import UserError

if TYPE_CHECKING:
    from sparsity_lab.model.transformer import Transformer


class Sparsifier(Protocol):
    """Decides which weights of one model are zero.

    Steps count from 1; step 0 is before the first. A method with state between steps is an `nn.Module` that
    holds it in buffers, so that checkpoints save and restore it.
    """

    def kept_fraction(self, step: int) -> float:
        """Return the share of weights, above 0, that may be nonzero after `step` optimizer steps.

        It is logged, and the model's learning rate is divided by its square root.
        """

    def after_step(self, model: Transformer, step: int) -> None:
        """Change the weights of `model` in place after optimizer step `step`."""


class SparsifierConfig(Config):
    """Base of every sparsity method's config. `kind` is the method's name; a user's file may leave it out."""

    kind: str = "file"

    @property
    def is_sparse(self) -> bool:
        """Whether the method makes weights zero."""
        return True

    @property
    def label(self) -> str:
        """The method's part of a run's name; may be empty."""
        return self.kind

    def identity(self) -> dict[str, Any]:
        """Return all settings that the trained weights depend on, as plain JSON."""
        return self.model_dump(mode="json")

    def check_size(self, weights: int) -> None:
        """Check the config against the number of weights that sparsity applies to.

        Raises:
            UserError: the config asks for more weights than there are.
        """


class BudgetConfig(SparsifierConfig):
    """Base of methods that keep a given number of weights, as `kept_fraction` or as `nonzeros`.

    `at_least`: minimum number of weights that each neuron and attention channel keeps.
    """

    kept_fraction: float | None = None
    nonzeros: PositiveInt | None = None
    at_least: NonNegativeInt = 4

    @field_validator("kept_fraction")
    @classmethod
    def _kept_share(cls, kept_fraction: float | None) -> float | None:
        if kept_fraction is not None and not 0 < kept_fraction <= 1:
            raise ValueError("must be above 0 and at most 1")
        return kept_fraction

    @model_validator(mode="after")
    def _one_budget(self) -> BudgetConfig:
        if (self.kept_fraction is None) == (self.nonzeros is None):
            raise ValueError(f"{self.kind}: give either kept_fraction or nonzeros; the other must be null")
        return self

    @property
    def label(self) -> str:
        return f"n{self.nonzeros}" if self.nonzeros is not None else f"{self.kept_fraction:g}"

    def check_size(self, weights: int) -> None:
        if self.nonzeros is not None and self.nonzeros > weights:
            raise UserError(f"sparsity.nonzeros: {self.nonzeros}: this model has {weights} weights")

    def final_fraction(self, weights: int) -> float:
        """Return the kept fraction at the end of training for a model with this many weights.

        The at-least-j rule may keep more.

        Raises:
            UserError: `nonzeros` is more than `weights`.
        """
        self.check_size(weights)
        if self.kept_fraction is not None:
            return self.kept_fraction
        assert self.nonzeros is not None
        return self.nonzeros / weights
