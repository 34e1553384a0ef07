"""Means of all nodes, and mean ablation as a tap (Gao et al. 2025, §2.2)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.transformer import Transformer


@torch.no_grad()
def mean_activations(model: Transformer, batches: Iterable[Tensor]) -> Tensor:
    """Mean of every node over all positions of the token batches, flat (n)."""
    layout = NodeLayout(model.config)
    total_n = torch.zeros(layout.size, dtype=torch.float64)
    positions = 0

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        if site is not Site.RESID:
            total_n[layout.slices[site, layer]] += x_btc.flatten(0, 1).double().sum(0).cpu()
        return x_btc

    for tokens_bt in batches:
        model(tokens_bt, tap)
        positions += tokens_bt.numel()
    return (total_n / positions).float()


def ablate(layout: NodeLayout, kept_n: Tensor, values_n: Tensor) -> Tap:
    """A tap that freezes every node outside `kept_n` at its value in `values_n`, at every position."""

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        if site is Site.RESID:
            return x_btc
        place = layout.slices[site, layer]
        return freeze(x_btc, kept_n[place], values_n[place])

    return tap


def freeze(x_btc: Tensor, kept_c: Tensor, value_c: Tensor) -> Tensor:
    """`x_btc`, which must be finite, with every channel outside `kept_c` at its value in `value_c`.

    The numbers of `torch.where`, in a third of its time on a CPU.
    """
    return torch.addcmul(value_c.to(x_btc.dtype).masked_fill(kept_c, 0), x_btc, kept_c.to(x_btc.dtype))
