"""The names of all sites in a forward pass, and the table of the matrices that connect them.

Sites are named as in the released code (openai/circuit_sparsity). This table is the only definition of the
model's topology. Edges, compaction, at-least-j, import, steering, leave-one-out and the viewer read it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # configs use site names without importing torch
    from torch import Tensor


class Site(StrEnum):
    """A place where a tap is called. All but `RESID` and `ATTN_PATTERN` are node sites (paper, Fig. 12)."""

    ATTN_IN = "attn_in"  # attention's input, after the norm
    ATTN_Q = "attn_q"
    ATTN_K = "attn_k"
    ATTN_V = "attn_v"
    ATTN_PATTERN = "attn_pattern"  # probabilities (b, h, query, key), read-only, for taps that ask
    ATTN_OUT = "attn_out"  # attention's output to the residual stream
    MLP_IN = "mlp_in"  # the MLP's input, after the norm
    MLP_GATE = "mlp_gate"  # gated MLPs only: the gate, after the nonlinearity
    MLP_NEURON = "mlp_neuron"  # after the nonlinearity; in a gated MLP, gate · up
    MLP_OUT = "mlp_out"  # the MLP's output to the residual stream
    RESID = "resid"  # the stream at boundary 0..2·n_layer: before each sublayer and before the unembedding


SUBLAYERS = ("attention", "mlp")  # modules of a layer, in order; sublayer i begins at boundary 2 · layer + i


class NodeSite(NamedTuple):
    """A row of the table. Matrices are named by their module in a layer; weights are (written, read).

    `stream` is the boundary, counted from the layer's first, at which the site reads the residual stream, or
    the boundary just after its write. It is None inside a sublayer. `released` is the released code's name.

    A gated MLP has two nodes for each neuron. The gate multiplies the neuron, as attention probabilities
    multiply values, without a weight. So each weight of its two input matrices is one edge, into one of them.
    """

    sublayer: str
    written_by: str | None
    read_by: tuple[str, ...]
    stream: int | None
    released: str | None


NODES = {
    Site.ATTN_IN: NodeSite(
        "attention", None, ("attention.q", "attention.k", "attention.v"), 0, "attn.act_in"
    ),
    Site.ATTN_Q: NodeSite("attention", "attention.q", (), None, "attn.q"),
    Site.ATTN_K: NodeSite("attention", "attention.k", (), None, "attn.k"),
    Site.ATTN_V: NodeSite("attention", "attention.v", ("attention.out",), None, "attn.v"),
    Site.ATTN_OUT: NodeSite("attention", "attention.out", (), 1, "attn.resid_delta"),
    Site.MLP_IN: NodeSite("mlp", None, ("mlp.gate", "mlp.up"), 1, "mlp.act_in"),
    Site.MLP_GATE: NodeSite("mlp", "mlp.gate", (), None, None),
    Site.MLP_NEURON: NodeSite("mlp", "mlp.up", ("mlp.down",), None, "mlp.post_act"),
    Site.MLP_OUT: NodeSite("mlp", "mlp.down", (), 2, "mlp.resid_delta"),
}
MIXED_BEFORE_READ = frozenset({Site.ATTN_V})  # sites that attention mixes over positions before the read

NODE_SITES = tuple(site for site in NODES if site is not Site.MLP_GATE)  # the paper's eight
GATED_NODE_SITES = tuple(NODES)
RELEASED_NAMES = {row.released: site for site, row in NODES.items() if row.released is not None}
STREAM_SITES = tuple(site for site, row in NODES.items() if row.stream is not None)
HEAD_SITES = (Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V)  # their channels are divided among the heads
WRITES = {row.sublayer: site for site, row in NODES.items() if site in STREAM_SITES and row.written_by}
"""Sublayer → the site at which it writes to the residual stream."""


class Matrix(NamedTuple):
    """A weight matrix whose entries are edges between the nodes of two sites in a layer."""

    name: str
    source: Site
    target: Site

    @property
    def channel_axis(self) -> int:
        """Weight axis of neurons or attention channels: 1 if it writes to the residual stream, else 0."""
        return 1 if self.target in STREAM_SITES else 0


MATRICES = tuple(
    Matrix(name, source, next(site for site, row in NODES.items() if row.written_by == name))
    for source in NODES
    for name in NODES[source].read_by
)
"""All matrices of a layer; `ModelConfig.matrices` are those that a model has."""


def sublayer_boundary(site: Site, layer: int) -> int:
    """Return the boundary before a node site's sublayer; nothing earlier depends on its nodes."""
    return 2 * layer + SUBLAYERS.index(NODES[site].sublayer)


Tap = Callable[[Site, int, "Tensor"], "Tensor"]
"""`tap(site, layer, x_btc) -> x_btc`. At `Site.RESID`, the second argument is the boundary.

`Site.ATTN_PATTERN` is shown only to taps whose attribute `asks_for_pattern` is true.
"""

Start = tuple[int, "Tensor"]
"""(boundary, x_btd): the residual stream at which a partial forward pass starts."""


def asks_for_pattern(tap: Tap | None) -> bool:
    """Return whether a tap asks for attention patterns, which are computed only on request."""
    return bool(getattr(tap, "asks_for_pattern", False))
