"""Load a model of docs/ whose tensors and means lie in one file: `model.json` and `weights.npz`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsity_lab.core.config import validate
from sparsity_lab.core.files import read_json
from sparsity_lab.model.checkpoints import ModelCard, stored_tensors
from sparsity_lab.model.transformer import Transformer


def load_model_and_means(folder: Path) -> tuple[Transformer, Tensor]:
    """Return the model, without gradients, and the means of its nodes (n)."""
    card = validate(ModelCard, read_json(folder / "model.json"))
    model = Transformer(card.config, card.vocab_size)
    with np.load(folder / "weights.npz") as weights, torch.no_grad():
        for name, tensor in stored_tensors(model).items():
            tensor.copy_(torch.from_numpy(weights[name]))
        means_n = torch.from_numpy(weights["means"])
    return model.eval().requires_grad_(False), means_n
