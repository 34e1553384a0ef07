"""The one vocabulary of places in a forward pass, and the one table of what joins them.

Sites are named as in the released code (openai/circuit_sparsity). Whoever needs the model's topology reads it
here: edges, compaction, at-least-j's axes, import, steering, leave-one-out, the viewer.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # configs name sites, and start without torch
    from torch import Tensor


class Site(StrEnum):
    """Where a tap may look. All but `RESID` and `ATTN_PATTERN` are node sites (Gao et al. 2025, Fig. 12)."""

    ATTN_IN = "attn_in"  # read of the residual stream by attention, after the norm
    ATTN_Q = "attn_q"
    ATTN_K = "attn_k"
    ATTN_V = "attn_v"
    ATTN_PATTERN = "attn_pattern"  # attention probabilities (b, h, query, key), read-only, for taps that ask
    ATTN_OUT = "attn_out"  # what attention writes to the residual stream
    MLP_IN = "mlp_in"  # read of the residual stream by the MLP, after the norm
    MLP_NEURON = "mlp_neuron"  # after the nonlinearity
    MLP_OUT = "mlp_out"  # what the MLP writes to the residual stream
    RESID = "resid"  # the stream at boundary 0..2·n_layer: before each sublayer and before the unembedding


SUBLAYERS = ("attention", "mlp")  # modules of a layer, in order; sublayer i begins at boundary 2 · layer + i


class NodeSite(NamedTuple):
    """A row of the table. Matrices are named by their module in a layer, their weight is (written, read).

    `stream` is the boundary, counted from the layer's first, at which the site reads the residual stream, or
    that it has just written to; None for a site inside a sublayer. `released` is the released code's name.
    """

    sublayer: str
    written_by: str | None
    read_by: tuple[str, ...]
    stream: int | None
    released: str


NODES = {
    Site.ATTN_IN: NodeSite(
        "attention", None, ("attention.q", "attention.k", "attention.v"), 0, "attn.act_in"
    ),
    Site.ATTN_Q: NodeSite("attention", "attention.q", (), None, "attn.q"),
    Site.ATTN_K: NodeSite("attention", "attention.k", (), None, "attn.k"),
    Site.ATTN_V: NodeSite("attention", "attention.v", ("attention.out",), None, "attn.v"),
    Site.ATTN_OUT: NodeSite("attention", "attention.out", (), 1, "attn.resid_delta"),
    Site.MLP_IN: NodeSite("mlp", None, ("mlp.up",), 1, "mlp.act_in"),
    Site.MLP_NEURON: NodeSite("mlp", "mlp.up", ("mlp.down",), None, "mlp.post_act"),
    Site.MLP_OUT: NodeSite("mlp", "mlp.down", (), 2, "mlp.resid_delta"),
}
MIXED_BEFORE_READ = frozenset({Site.ATTN_V})  # over positions, by the attention pattern

NODE_SITES = tuple(NODES)
STREAM_SITES = tuple(site for site, row in NODES.items() if row.stream is not None)
HEAD_SITES = (Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V)  # their channels are divided among the heads
WRITES = {row.sublayer: site for site, row in NODES.items() if site in STREAM_SITES and row.written_by}
"""Sublayer → the site at which it writes to the residual stream."""


class Matrix(NamedTuple):
    """A weight matrix that carries edges: from the nodes of one site to those of another in its layer."""

    name: str
    source: Site
    target: Site

    @property
    def channel_axis(self) -> int:
        """Axis of its weight that counts neurons or attention channels: rows, or columns if it writes out."""
        return 1 if self.target in STREAM_SITES else 0


MATRICES = tuple(
    Matrix(name, source, next(site for site, row in NODES.items() if row.written_by == name))
    for source in NODES
    for name in NODES[source].read_by
)


def sublayer_boundary(site: Site, layer: int) -> int:
    """The boundary before the sublayer that a node site belongs to: nothing earlier depends on its nodes."""
    return 2 * layer + SUBLAYERS.index(NODES[site].sublayer)


Tap = Callable[[Site, int, "Tensor"], "Tensor"]
"""`tap(site, layer, x_btc) -> x_btc`; at `Site.RESID` the second argument is the boundary, else the layer.

`Site.ATTN_PATTERN` is shown only to a tap that has a true attribute `asks_for_pattern`.
"""

Start = tuple[int, "Tensor"]
"""(boundary, x_btd): the residual stream from which a forward pass goes on."""


def asks_for_pattern(tap: Tap | None) -> bool:
    """Whether a tap is to be shown attention patterns, which are computed for it alone."""
    return bool(getattr(tap, "asks_for_pattern", False))
