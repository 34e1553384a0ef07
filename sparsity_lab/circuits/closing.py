"""Closed circuits: a circuit that computes from its kept nodes and edges alone.

Mean ablation freezes a dropped node after AbsTopK. Until then the node has a live value, computed by weights
that are not edges of the circuit, and it can displace a kept node from the k largest. In a closed circuit
every weight into a dropped node is zero. A dropped node then competes with a constant, its bias.

The other parameters stay. A weight from a dropped into a kept node carries the dropped node's frozen mean,
which is a constant of the circuit. Biases, embeddings, norms, sinks and the bigram table are not edges.
Attention-in and MLP-in nodes read the residual stream without a weight, so closing changes nothing there.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer

M = TypeVar("M", bound=nn.Module)


def competes(config: ModelConfig, site: Site) -> bool:
    """Return whether AbsTopK drops channels at `site`. Elsewhere a dropped node has no effect on others."""
    width = config.width(site)
    return site in config.activation_sites and config.k(width) < width


def closing_matters(config: ModelConfig) -> bool:
    """Return whether closing a circuit can change what it computes."""
    return any(competes(config, matrix.target) for matrix in config.matrices)


@torch.no_grad()
def close(model: Transformer, kept_n: Tensor) -> Transformer:
    """Return a copy of `model` whose weights into nodes outside `kept_n` (n) are zero.

    The copy shares all tensors that do not change. It is `model` itself if no dropped node can compete.
    """
    layout, blocks = NodeLayout(model.config), list(model.blocks)
    for matrix in model.config.matrices:
        if not competes(model.config, matrix.target):
            continue
        for layer, block in enumerate(blocks):
            kept_o = kept_n[layout.slices[matrix.target, layer]]
            if not kept_o.all():
                sublayer, name = matrix.name.split(".")
                closed = with_children(
                    block.get_submodule(sublayer), **{name: _masked(block.get_submodule(matrix.name), kept_o)}
                )
                blocks[layer] = with_children(block, **{sublayer: closed})
    if all(new is old for new, old in zip(blocks, model.blocks, strict=True)):
        return model
    return with_children(model, blocks=nn.ModuleList(blocks))


def with_children(module: M, **children: nn.Module) -> M:
    """Return a shallow copy of `module` with some children replaced."""
    clone = copy.copy(module)
    clone._modules = {**module._modules, **children}
    return clone


def _masked(linear: nn.Module, kept_o: Tensor) -> nn.Module:
    """Return a copy of a linear layer whose rows outside `kept_o` are zero."""
    weight_oi = linear.get_parameter("weight")
    clone = copy.copy(linear)
    clone._parameters = {
        **linear._parameters,
        "weight": nn.Parameter(weight_oi * kept_o[:, None], weight_oi.requires_grad),
    }
    return clone
