"""A model that computes only with the inputs that may still matter: dropped nodes folded into the biases.

A node that is frozen at its mean contributes a constant to every matrix that reads it, so those columns can
go. The forward pass stays the transformer's own; only its linear layers are narrower inside. Exact: the
attention-output matrix keeps its columns, since with a sink a frozen value channel is not constant after
mixing.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsity_lab.circuits.ablation import NodeLayout
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer

M = TypeVar("M", bound=nn.Module)
_READERS = {
    Site.ATTN_IN: "attention.q attention.k attention.v",
    Site.MLP_IN: "mlp.up",
    Site.MLP_NEURON: "mlp.down",
}


class KeptInputs(nn.Module):
    """A linear layer of which all inputs but `kept_i` (indices) are frozen at `value_c`."""

    def __init__(self, linear: nn.Linear, live_c: Tensor, value_c: Tensor) -> None:
        super().__init__()
        self.kept_i = live_c.nonzero().flatten()
        self.weight_oi = linear.weight[:, live_c].contiguous()
        self.bias_o = linear.bias + linear.weight[:, ~live_c] @ value_c[~live_c]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.index_select(-1, self.kept_i), self.weight_oi, self.bias_o)


@torch.no_grad()
def compact(model: Transformer, live_n: Tensor, values_n: Tensor) -> Transformer:
    """A copy of `model`, sharing its tensors, that is right where the nodes outside `live_n` are frozen."""
    layout = NodeLayout(model.config)
    blocks = []
    for layer, block in enumerate(model.blocks):
        sublayers = {name: _with(block.get_submodule(name)) for name in ("attention", "mlp")}
        for site, readers in _READERS.items():
            place = layout.slices[site, layer]
            if live_n[place].all():
                continue
            for reader in readers.split():
                sublayer, name = reader.split(".")
                linear = block.get_submodule(reader)
                assert isinstance(linear, nn.Linear)
                narrow = KeptInputs(linear, live_n[place], values_n[place])
                sublayers[sublayer] = _with(sublayers[sublayer], **{name: narrow})
        blocks.append(_with(block, **sublayers))
    return _with(model, blocks=nn.ModuleList(blocks))


def _with(module: M, **children: nn.Module) -> M:
    """A shallow copy of `module` with some children replaced."""
    clone = copy.copy(module)
    clone._modules = {**module._modules, **children}
    return clone
