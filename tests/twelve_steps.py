"""A training of twelve steps, which tests change as they need; the models are micro's."""

from pathlib import Path
from typing import Any

import torch
from micro import SMALL, VOCABULARY
from torch import Tensor

from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.objective import NextToken
from sparsity_lab.training.sparsity import make_sparsifier
from sparsity_lab.training.sparsity.magnitude import Config as Magnitude
from sparsity_lab.training.sparsity.none import Config as NoSparsity
from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig

STEPS = 12
CONFIG = TrainerConfig(
    tokens=STEPS * 8 * SMALL.n_ctx,
    batch_size=8,
    learning_rate=0.05,
    precision="float32",
    validation_windows=16,
    validations=2,
    checkpoint_every=5,
    log_every=1,
)
SPARSE = Magnitude(kept_fraction=0.2, at_least=3)
DENSE = NoSparsity()
METHOD_FILE = Path(__file__).parent / "training" / "sparsity" / "one_shot.py"


def new_model(seed: int = 0) -> Transformer:
    """The small model as it is before training."""
    torch.manual_seed(seed)
    return Transformer(SMALL, VOCABULARY)


def new_module(
    sparsity: SparsifierConfig = SPARSE,
    config: TrainerConfig = CONFIG,
    *,
    cls: type[LanguageModule] = LanguageModule,
    model: Transformer | None = None,
    n_steps: int = STEPS,
) -> Any:
    """A module that trains a small model to predict the next token; its type is `cls`."""
    model = new_model() if model is None else model
    return cls(model, NextToken(), make_sparsifier(sparsity, model, n_steps, 5), config, n_steps)


def weights(module: LanguageModule) -> dict[str, Tensor]:
    """A copy of the model's tensors."""
    return {name: tensor.clone() for name, tensor in module.model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether tensors are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
