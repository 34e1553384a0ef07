"""The contract of a sparsity method: a config, and a sparsifier that acts after every optimizer step.

Importing this module does not import torch, so that configs can be read without it.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    get_args,
    runtime_checkable,
)

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from sparsity_lab.core.config import Config, GrowingConfig
from sparsity_lab.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from sparsity_lab.model.transformer import Transformer


Part = Literal["embedding", "positions", "blocks", "unembedding"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The parts of a model with weights, as its tensors' names begin. Tied embeddings are `embedding`."""


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


class PartGradient(NamedTuple):
    """The known part of a weight's gradient, which stands for the whole when gradients are scaled.

    `whole_to_part`: estimated squared norm of the whole gradient over that of the part. `numel`: entries of
    the whole.
    """

    gradient: Tensor
    whole_to_part: float
    numel: int


@runtime_checkable
class SelfUpdating(Sparsifier, Protocol):
    """A sparsifier that updates some of the model's weights itself, in place of the optimizer.

    In each step, `collect` follows the backward pass; the module scales the gradients it returns together
    with all others; then the optimizer updates the other weights; `update` and `after_step` follow. A weight
    without a gradient after `collect` is left alone by the optimizer.
    """

    def updated_names(self) -> list[str]:
        """Name the weights that may be updated here. DDP leaves their gradients to `collect`."""

    def collect(self) -> list[PartGradient]:
        """Take over the gradients of the weights that are updated here, averaged over all ranks."""

    def update(self, optimizer: Optimizer) -> None:
        """Update these weights with the settings of the optimizer's first parameter group."""


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

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the model whose weights the method may make zero."""
        return PARTS

    def identity(self) -> dict[str, Any]:
        """Return all settings that the trained weights depend on, as plain JSON."""
        return self.model_dump(mode="json")

    def check_size(self, weights: int) -> None:
        """Check the config against the number of weights that sparsity applies to.

        Raises:
            UserError: the config asks for more weights than there are.
        """


def _within_training(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError("must lie between 0 and 1")
    return share


ShareOfTraining = Annotated[float, AfterValidator(_within_training)]
"""A moment of training, as a fraction of its steps."""


class BudgetConfig(SparsifierConfig, GrowingConfig):
    """Base of methods that keep a given number of weights, as `kept_fraction` or as `nonzeros`.

    `at_least`: minimum number of weights that each neuron and attention channel keeps.
    `matrices`: the parts of the model whose weights are sparse; the others stay dense, and neither number
    counts them.
    """

    later_fields: ClassVar = ("matrices",)

    kept_fraction: float | None = None
    nonzeros: PositiveInt | None = None
    at_least: NonNegativeInt = 4
    matrices: tuple[Part, ...] = Field(default=PARTS, strict=False)  # a list from YAML too

    @field_validator("matrices")
    @classmethod
    def _each_once(cls, matrices: tuple[Part, ...]) -> tuple[Part, ...]:
        if not matrices or len(set(matrices)) < len(matrices):
            raise ValueError(f"must be one or more of {', '.join(PARTS)}, each once")
        return tuple(part for part in PARTS if part in matrices)  # one order, so one hash

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

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.matrices

    def weights(self, model: Transformer) -> dict[str, tuple[Parameter, int | None]]:
        """Return those of `Transformer.sparse_weights` that are in the sparse parts."""
        found = model.sparse_weights()
        return {name: found[name] for name in found if name.partition(".")[0] in self.matrices}

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
