"""The edges of a circuit: nonzero weights between kept nodes (Gao et al. 2025, §2.2).

Four kinds of matrix carry edges: query/key/value, attention-output, MLP-in (a gated MLP has two) and MLP-out.
Every edge therefore lies within one sublayer. Paths through the residual stream or the attention pattern are
not counted, and neither are embeddings, biases and the bigram table.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Edge, Node
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer


def edge_matrices(model: Transformer) -> Iterator[tuple[int, Site, Site, Tensor]]:
    """Yield each matrix that carries edges: layer, site read, site written, weight (out, in)."""
    for layer, block in enumerate(model.blocks):
        for matrix in model.config.matrices:
            weight_oi = block.get_parameter(f"{matrix.name}.weight").detach()
            yield layer, matrix.source, matrix.target, weight_oi


def count_edges(model: Transformer, kept_n: Tensor) -> int:
    """Count the nonzero weights between kept nodes."""
    slices = NodeLayout(model.config).slices
    return sum(
        int(torch.count_nonzero(weight_oi[kept_n[slices[target, layer]]][:, kept_n[slices[source, layer]]]))
        for layer, source, target, weight_oi in edge_matrices(model)
    )


def list_edges(model: Transformer, kept_n: Tensor) -> tuple[Edge, ...]:
    """List the nonzero weights between kept nodes."""
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
