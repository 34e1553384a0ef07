"""Interventions on nodes, and the ways in which users name nodes.

Shape suffixes: n all nodes of a model, b rows, t tokens.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.evidence.circuit_under_test import activations
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.taps import ablate, on_nodes
from sparsity_lab.model.transformer import Transformer

Nodes: TypeAlias = Circuit | Node | tuple[int, str, int] | Iterable[Node | tuple[int, str, int]]
"""A circuit's nodes, or one or more nodes. A tuple is (layer, site, channel)."""


def node_mask(layout: NodeLayout, nodes: Nodes) -> Tensor:
    """Return a boolean vector over all nodes (n) that is true at `nodes`.

    Raises:
        UserError: a node is not in this model.
    """
    mask_n = torch.zeros(layout.size, dtype=torch.bool)
    for node in _listed(nodes):
        place = site_slice(layout, node.layer, node.site)
        width = place.stop - place.start
        if not 0 <= node.channel < width:
            raise UserError(f"nodes: {node.site} of layer {node.layer} has channels 0 to {width - 1}")
        mask_n[place.start + node.channel] = True
    return mask_n


def _listed(nodes: Nodes) -> Iterable[Node]:
    if isinstance(nodes, Circuit):
        return nodes.nodes
    if isinstance(nodes, Node):
        return (nodes,)
    if isinstance(nodes, tuple) and len(nodes) == 3 and isinstance(nodes[1], str):
        return (_node(nodes),)
    if isinstance(nodes, str) or not isinstance(nodes, Iterable):
        raise UserError(f"nodes: {nodes!r}: allowed: a circuit, or nodes as tuples (layer, site, channel)")
    return [node if isinstance(node, Node) else _node(node) for node in nodes]


def _node(triple: object) -> Node:
    match triple:
        case (int(layer), str(site), int(channel)):
            return Node(layer=layer, site=site, channel=channel)
    raise UserError(f"nodes: {triple!r}: allowed: a Node, or a tuple (layer, site, channel)")


def site_slice(layout: NodeLayout, layer: int, site: str) -> slice:
    """Return the slice of a site's nodes in the flat order.

    Raises:
        UserError: the model has no such site or layer.
    """
    if site not in (known := layout.config.node_sites):
        raise UserError(f"nodes: site {site!r}: allowed: {', '.join(known)}")
    if not 0 <= layer < layout.config.n_layer:
        raise UserError(f"nodes: layer {layer}: the model has layers 0 to {layout.config.n_layer - 1}")
    return layout.slices[Site(site), layer]


Intervention: TypeAlias = Callable[[Tensor], Tap]
"""Makes the tap for a pass over given tokens (b, t)."""


def at_values(layout: NodeLayout, mask_n: Tensor, values_n: Tensor) -> Intervention:
    """Set the nodes of `mask_n` to the same values (n) at every position."""
    tap = _set_nodes(layout, mask_n, values_n)
    return lambda tokens_bt: tap


def kept(layout: NodeLayout, mask_n: Tensor, means_n: Tensor) -> Intervention:
    """Freeze every node outside `mask_n` at its mean."""
    tap = ablate(layout, mask_n, means_n)
    return lambda tokens_bt: tap


def patched(layout: NodeLayout, mask_n: Tensor, values_btn: Tensor) -> Intervention:
    """Set the nodes of `mask_n` to the values of another pass, position by position.

    The tap's maker raises UserError where the tokens have another length.
    """

    def make(tokens_bt: Tensor) -> Tap:
        if tokens_bt.shape[1] != values_btn.shape[1] or len(values_btn) not in (1, len(tokens_bt)):
            raise UserError(
                f"patch: the source is {tuple(values_btn.shape[:2])} tokens (rows, length), the text "
                f"{tuple(tokens_bt.shape)}; they must be equal, or the source one row"
            )
        return _set_nodes(layout, mask_n, values_btn)

    return make


def resampled(
    model: Transformer, layout: NodeLayout, mask_n: Tensor, text_wc: Tensor, seed: int
) -> Intervention:
    """Set the nodes of `mask_n` to their values on windows of text.

    The window of a row is drawn from `seed` and the row's tokens, whatever rows it is computed with.
    """

    def make(tokens_bt: Tensor) -> Tap:
        drawn = [derive_seed(seed, "resampled", str(row)) % len(text_wc) for row in tokens_bt.tolist()]
        return _set_nodes(layout, mask_n, activations(model, text_wc[drawn, : tokens_bt.shape[1]]))

    return make


def _set_nodes(layout: NodeLayout, mask_n: Tensor, values: Tensor) -> Tap:
    return on_nodes(
        layout, lambda x_btc, place: torch.where(mask_n[place], values[..., place].to(x_btc.dtype), x_btc)
    )
