"""Load an example of docs/: a model, its tensors and means in one file, its circuit's nodes, and pairs."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.config import validate
from sparsity_lab.core.files import read_json
from sparsity_lab.model.checkpoints import ModelCard, stored_tensors
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.task import Pair


def load_model_and_means(folder: Path) -> tuple[Transformer, Tensor]:
    """Return the model, without gradients, and the means of its nodes (n)."""
    card = validate(ModelCard, read_json(folder / "model.json"))
    model = Transformer(card.config, card.vocab_size)
    with np.load(folder / "weights.npz") as weights, torch.no_grad():
        for name, tensor in stored_tensors(model).items():
            tensor.copy_(torch.from_numpy(weights[name]))
        means_n = torch.from_numpy(weights["means"])
    return model.eval().requires_grad_(False), means_n


def load_nodes(folder: Path) -> list[Node]:
    """Return the nodes of the circuit in `nodes.json`."""
    rows = read_json(folder / "nodes.json")
    return [Node(layer=layer, site=site, channel=channel) for layer, site, channel in rows]


def load_pairs(folder: Path) -> list[Pair]:
    """Return the test pairs in `pairs.jsonl`."""
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Pair(row["positive"], row["negative"], tuple(row["answers"])) for row in rows]
