"""Compaction: an equivalent, faster model whose frozen nodes are folded into the biases.

A node that is frozen at its mean adds a constant to the output of every matrix that reads it. The constant
moves into the bias, and the matrix loses that column. A sublayer that writes only constants is replaced by
them, so taps do not see it. The forward pass is still the transformer's own; only its linear layers are
narrower.

The attention-output matrix keeps all its columns: with an attention sink, a frozen value channel is not
constant after mixing. Compaction is therefore exact up to rounding.
"""

import torch
from torch import Tensor, nn

from sparsity_lab.circuits.beside_whole import needs_pairs
from sparsity_lab.circuits.closing import close, with_children
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.ops import FrozenLinear
from sparsity_lab.model.sites import MIXED_BEFORE_READ, SUBLAYERS, WRITES
from sparsity_lab.model.transformer import Transformer


class KeptInputs(FrozenLinear):
    """A linear layer whose inputs outside `live_i` are frozen at `value_i`."""

    def __init__(self, linear: nn.Linear, live_i: Tensor, value_i: Tensor) -> None:
        bias_o = linear.weight[:, ~live_i] @ value_i[~live_i]
        if linear.bias is not None:
            bias_o = linear.bias + bias_o
        super().__init__(linear.weight[:, live_i].contiguous(), bias_o)
        self.kept_i = live_i.nonzero().flatten()

    def forward(self, x: Tensor) -> Tensor:
        if len(self.kept_i) < x.shape[-1]:
            x = x.index_select(-1, self.kept_i)
        return super().forward(x)


class Constant(nn.Module):
    """A sublayer whose outputs are all frozen."""

    def __init__(self, value_d: Tensor) -> None:
        super().__init__()
        self.value_d = value_d

    def forward(self, *ignored: object) -> Tensor:
        return self.value_d


@torch.no_grad()
def compact(model: Transformer, live_n: Tensor, values_n: Tensor, closed: bool = False) -> Transformer:
    """Return a copy of `model` that is valid while the nodes outside `live_n` are frozen at `values_n`.

    The copy shares the model's tensors. Where a kernel is available, products with mostly zero matrices skip
    the zeros. With `closed`, weights into nodes outside `live_n` are zero (`closing.py`). Nodes that take the
    other prompt's value are not constant, so none is folded.
    """
    model = close(model, live_n) if closed else model
    live_n = torch.ones_like(live_n) if needs_pairs(model) else live_n
    layout = NodeLayout(model.config)
    live = {
        (layer, sublayer): bool(live_n[layout.slices[site, layer]].any())
        for layer in range(model.config.n_layer)
        for sublayer, site in WRITES.items()
    }
    if not any(live.values()):
        live = dict.fromkeys(live, True)  # otherwise no output would depend on any gate
    blocks = []
    for layer, block in enumerate(model.blocks):
        sublayers = {name: with_children(block.get_submodule(name)) for name in SUBLAYERS}
        for matrix in model.config.matrices:
            sublayer, name = matrix.name.split(".")
            if not live[layer, sublayer]:
                continue
            linear = block.get_submodule(matrix.name)
            assert isinstance(linear, nn.Linear)
            if matrix.source in MIXED_BEFORE_READ:
                live_i, value_i = (
                    torch.ones(linear.in_features).bool(),
                    linear.weight.new_zeros(linear.in_features),
                )
            else:
                place = layout.slices[matrix.source, layer]
                live_i, value_i = live_n[place], values_n[place].to(linear.weight.dtype)
            if live_i.all() and kernel_for("frozen_linear", linear.weight) is None:
                continue
            narrow = KeptInputs(linear, live_i, value_i)
            sublayers[sublayer] = with_children(sublayers[sublayer], **{name: narrow})
        constant = {
            sublayer: Constant(values_n[layout.slices[site, layer]].to(model.embedding.weight.dtype))
            for sublayer, site in WRITES.items()
            if not live[layer, sublayer]
        }
        blocks.append(with_children(block, **sublayers | constant))
    return with_children(model, blocks=nn.ModuleList(blocks))
