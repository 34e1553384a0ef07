"""The one vocabulary of places in a forward pass, named as in the released code (openai/circuit_sparsity)."""

from collections.abc import Callable
from enum import StrEnum

from torch import Tensor


class Site(StrEnum):
    """Where a tap may look and change. All but `RESID` are node sites (Gao et al. 2025, Fig. 12)."""

    ATTN_IN = "attn_in"  # read of the residual stream by attention, after the norm
    ATTN_Q = "attn_q"
    ATTN_K = "attn_k"
    ATTN_V = "attn_v"
    ATTN_OUT = "attn_out"  # what attention writes to the residual stream
    MLP_IN = "mlp_in"  # read of the residual stream by the MLP, after the norm
    MLP_NEURON = "mlp_neuron"  # after the nonlinearity
    MLP_OUT = "mlp_out"  # what the MLP writes to the residual stream
    RESID = "resid"  # the stream at boundary 0..2·n_layer: before each sublayer and before the unembedding


NODE_SITES = tuple(site for site in Site if site is not Site.RESID)

Tap = Callable[[Site, int, Tensor], Tensor]
"""`tap(site, layer, x_btc) -> x_btc`; at `Site.RESID` the second argument is the boundary, else the layer."""

Start = tuple[int, Tensor]
"""(boundary, x_btd): the residual stream from which a forward pass goes on."""
