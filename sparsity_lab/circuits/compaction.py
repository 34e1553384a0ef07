"""A model that computes only with the inputs that may still matter: dropped nodes folded into the biases.

A node that is frozen at its mean contributes a constant to every matrix that reads it, so those columns can
go. A sublayer that writes nothing but constants goes as a whole, and taps do not see it. The forward pass
stays the transformer's own; only its linear layers are narrower inside. Exact: the attention-output matrix
keeps its columns, since with a sink a frozen value channel is not constant after mixing.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.kernels.cpu.sparse_linear import FrozenLinear
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer

M = TypeVar("M", bound=nn.Module)
_WRITES = {"attention": Site.ATTN_OUT, "mlp": Site.MLP_OUT}
_READS = {
    "attention.q": Site.ATTN_IN,
    "attention.k": Site.ATTN_IN,
    "attention.v": Site.ATTN_IN,
    "attention.out": None,
    "mlp.up": Site.MLP_IN,
    "mlp.down": Site.MLP_NEURON,
}
# Share of nonzero weights below which they alone are multiplied. Training has a lower limit, as it lists
# them anew in each step; here they are listed once. Not measured apart.
BY_NONZEROS_BELOW = 0.2


class KeptInputs(nn.Module):
    """A linear layer of which all inputs but those in `live_i` are frozen at `value_i`."""

    def __init__(self, linear: nn.Linear, live_i: Tensor, value_i: Tensor) -> None:
        super().__init__()
        self.kept_i = live_i.nonzero().flatten()
        self.weight_oi = linear.weight[:, live_i].contiguous()
        self.bias_o = linear.weight[:, ~live_i] @ value_i[~live_i]
        if linear.bias is not None:
            self.bias_o = linear.bias + self.bias_o
        self.sparse = FrozenLinear(self.weight_oi, self.bias_o) if mostly_zero(self.weight_oi) else None

    def forward(self, x: Tensor) -> Tensor:
        if len(self.kept_i) < x.shape[-1]:
            x = x.index_select(-1, self.kept_i)
        return F.linear(x, self.weight_oi, self.bias_o) if self.sparse is None else self.sparse(x)


class Constant(nn.Module):
    """A sublayer of which all that it writes is frozen."""

    def __init__(self, value_d: Tensor) -> None:
        super().__init__()
        self.value_d = value_d

    def forward(self, *ignored: object) -> Tensor:
        return self.value_d


def mostly_zero(weight_oi: Tensor) -> bool:
    """Whether a product with `weight_oi` is faster by its nonzeros alone."""
    if weight_oi.device.type != "cpu" or weight_oi.dtype != torch.float32:
        return False
    return int(torch.count_nonzero(weight_oi)) < BY_NONZEROS_BELOW * weight_oi.numel()


@torch.no_grad()
def compact(model: Transformer, live_n: Tensor, values_n: Tensor) -> Transformer:
    """A copy of `model`, sharing its tensors, that is right where the nodes outside `live_n` are frozen.

    Weights that are mostly zero are multiplied by their nonzeros alone.
    """
    layout = NodeLayout(model.config)
    live = {
        (layer, name): bool(live_n[layout.slices[site, layer]].any())
        for layer in range(model.config.n_layer)
        for name, site in _WRITES.items()
    }
    if not any(live.values()):
        live = dict.fromkeys(live, True)  # or nothing would depend on any gate
    blocks = []
    for layer, block in enumerate(model.blocks):
        sublayers = {name: _with(block.get_submodule(name)) for name in ("attention", "mlp")}
        for reader, site in _READS.items():
            if not live[layer, reader.split(".")[0]]:
                continue
            linear = block.get_submodule(reader)
            assert isinstance(linear, nn.Linear)
            live_i, value_i = (
                torch.ones(linear.in_features, dtype=torch.bool),
                torch.zeros(linear.in_features),
            )
            if site is not None:
                place = layout.slices[site, layer]
                live_i, value_i = live_n[place], values_n[place]
            if live_i.all() and not mostly_zero(linear.weight):
                continue
            sublayer, name = reader.split(".")
            narrow = KeptInputs(linear, live_i, value_i)
            sublayers[sublayer] = _with(sublayers[sublayer], **{name: narrow})
        constant = {
            name: Constant(values_n[layout.slices[site, layer]])
            for name, site in _WRITES.items()
            if not live[layer, name]
        }
        blocks.append(_with(block, **sublayers | constant))
    return _with(model, blocks=nn.ModuleList(blocks))


def _with(module: M, **children: nn.Module) -> M:
    """A shallow copy of `module` with some children replaced."""
    clone = copy.copy(module)
    clone._modules = {**module._modules, **children}
    return clone
