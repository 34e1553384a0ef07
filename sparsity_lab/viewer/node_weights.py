"""Weights around a circuit's nodes: edges that leave the circuit, and its channels' (un)embeddings."""

from collections import Counter

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.edges import edge_matrices
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.model.sites import STREAM_SITES, Site
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch
from sparsity_lab.viewer.examples_record import ChannelWeights, Connection, Connections, digits

STRONGEST = 5  # weights listed on each side of a node


def connections(model: Transformer, kept_n: Tensor) -> dict[Node, tuple[Connections, Connections]]:
    """Return the whole model's edges into and out of each kept node."""
    layout = NodeLayout(model.config)
    slices = layout.slices
    found: dict[Node, tuple[list[Connections], list[Connections]]] = {
        node: ([], []) for node in layout.nodes(kept_n)
    }
    for layer, source, target, weight_oi in edge_matrices(model):
        ends = (target, source, weight_oi), (source, target, weight_oi.T)
        for side, (own, other, weight_xy) in enumerate(ends):
            inside_y = kept_n[slices[other, layer]]
            for channel in kept_n[slices[own, layer]].nonzero().flatten().tolist():
                node = Node(layer=layer, site=own.value, channel=channel)
                found[node][side].append(_connections(weight_xy[channel], inside_y, layer, other))
    return {node: (_merged(ins), _merged(outs)) for node, (ins, outs) in found.items()}


def _connections(weight_y: Tensor, inside_y: Tensor, layer: int, other: Site) -> Connections:
    outside_y = weight_y.abs() * ~inside_y
    strongest = outside_y.argsort(descending=True, stable=True)[:STRONGEST].tolist()
    return Connections(
        total=int(torch.count_nonzero(weight_y)),
        outside=tuple(
            Connection(node=Node(layer=layer, site=other.value, channel=y), weight=digits(weight_y[y].item()))
            for y in strongest
            if outside_y[y] > 0
        ),
    )


def _merged(parts: list[Connections]) -> Connections:
    """Merge the connections of all matrices that read one channel."""
    outside = sorted((c for part in parts for c in part.outside), key=lambda c: -abs(c.weight))
    return Connections(total=sum(part.total for part in parts), outside=tuple(outside[:STRONGEST]))


def deciding_tokens(batch: TaskBatch, end_of_text: int) -> list[int]:
    """List tokens that occur more often in one prompt of a pair than in the other, most common first."""
    half, counts = len(batch.label_b) // 2, Counter[int]()
    for positive_t, negative_t in zip(batch.tokens_bt[:half], batch.tokens_bt[half:], strict=True):
        pair = Counter(positive_t.tolist()), Counter(negative_t.tolist())
        counts.update({*(pair[0] - pair[1]), *(pair[1] - pair[0])} - {end_of_text})
    return [token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def residual_channels(model: Transformer, kept_n: Tensor) -> list[int]:
    """List the residual channels that kept nodes read or write, without concatenated positions."""
    nodes = NodeLayout(model.config).nodes(kept_n)
    channels = {node.channel for node in nodes if Site(node.site) in STREAM_SITES}
    return sorted(channel for channel in channels if channel < model.config.d_model)


def embedded(model: Transformer, token: int, channels: list[int], tokenizer: Tokenizer) -> ChannelWeights:
    """Return the token's embedding in the channels."""
    return _weights(tokenizer.token(token), model.embedding.weight[token], channels)


def unembedded(model: Transformer, token: int, channels: list[int], tokenizer: Tokenizer) -> ChannelWeights:
    """Return the channels' weights onto the token's logit, including the final norm's scale."""
    return _weights(tokenizer.token(token), model.unembedding.weight[token] * model.norm.weight, channels)


def _weights(token: str, weight_d: Tensor, channels: list[int]) -> ChannelWeights:
    weights = ((channel, digits(weight_d[channel].item())) for channel in channels)
    return ChannelWeights(token=token, weights=tuple((c, weight) for c, weight in weights if weight))
