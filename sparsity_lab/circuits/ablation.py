"""Means of all nodes over text, at which nodes outside a circuit are frozen (Gao et al. 2025, §2.2)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.taps import ablate, on_nodes
from sparsity_lab.model.transformer import Transformer

__all__ = ["ablate", "mean_activations"]


@torch.no_grad()
def mean_activations(model: Transformer, batches: Iterable[Tensor]) -> Tensor:
    """Mean of every node over all positions of the token batches, flat (n)."""
    layout = NodeLayout(model.config)
    total_n = torch.zeros(layout.size, dtype=torch.float64)
    positions = 0

    def add(x_btc: Tensor, place: slice) -> Tensor:
        total_n[place] += x_btc.flatten(0, 1).double().sum(0).cpu()
        return x_btc

    for tokens_bt in batches:
        model(tokens_bt, on_nodes(layout, add))
        positions += tokens_bt.numel()
    return (total_n / positions).float()
