"""The edges of a circuit: nonzero weights between kept nodes (Gao et al. 2025, §2.2).

Four kinds of matrix carry edges: query/key/value, attention-output, MLP-in and MLP-out. Embeddings, biases
and the bigram table are not counted.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Edge, Node
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer

MATRICES = (
    ("attention.q", Site.ATTN_IN, Site.ATTN_Q),
    ("attention.k", Site.ATTN_IN, Site.ATTN_K),
    ("attention.v", Site.ATTN_IN, Site.ATTN_V),
    ("attention.out", Site.ATTN_V, Site.ATTN_OUT),
    ("mlp.up", Site.MLP_IN, Site.MLP_NEURON),
    ("mlp.down", Site.MLP_NEURON, Site.MLP_OUT),
)


def edge_matrices(model: Transformer) -> Iterator[tuple[int, Site, Site, Tensor]]:
    """Each matrix that carries edges: layer, the site it reads, the site it writes, its weight (out, in)."""
    for layer, block in enumerate(model.blocks):
        for name, source, target in MATRICES:
            yield layer, source, target, block.get_parameter(f"{name}.weight").detach()


def count_edges(model: Transformer, kept_n: Tensor) -> int:
    """Number of nonzero weights between kept nodes."""
    slices = NodeLayout(model.config).slices
    return sum(
        int(torch.count_nonzero(weight_oi[kept_n[slices[target, layer]]][:, kept_n[slices[source, layer]]]))
        for layer, source, target, weight_oi in edge_matrices(model)
    )


def list_edges(model: Transformer, kept_n: Tensor) -> tuple[Edge, ...]:
    """The edges that `count_edges` counts."""
    slices = NodeLayout(model.config).slices
    edges = []
    for layer, source, target, weight_oi in edge_matrices(model):
        both_oi = kept_n[slices[target, layer]][:, None] & kept_n[slices[source, layer]] & (weight_oi != 0)
        for to, of in both_oi.nonzero().tolist():
            edges.append(
                Edge(
                    source=Node(layer=layer, site=source.value, channel=of),
                    target=Node(layer=layer, site=target.value, channel=to),
                    weight=weight_oi[to, of].item(),
                )
            )
    return tuple(edges)
