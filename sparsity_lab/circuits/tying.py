"""One mask for each query channel and the key channel that it is multiplied with (`pruning.tied_query_key`).

A score of attention is a sum over channels of query · key. Gao et al. (2025) mask the two separately.
With tied masks, both channels of a product are kept or both are dropped.

Shape suffixes: n all nodes of a model.
"""

import torch
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import Site


def query_key_partners(config: ModelConfig) -> Tensor:
    """Return the index of each node's partner (n): of a query its key, of a key its query, else itself."""
    layout = NodeLayout(config)
    partner_n = torch.arange(layout.size)
    for layer in range(config.n_layer):
        query, key = (layout.slices[site, layer] for site in (Site.ATTN_Q, Site.ATTN_K))
        partner_n[query], partner_n[key] = partner_n[key].clone(), partner_n[query].clone()
    return partner_n


def average(x_n: Tensor, partner_n: Tensor | None) -> Tensor:
    """Return the mean of each node's value and its partner's; `x_n` itself if nothing is tied."""
    return x_n if partner_n is None else (x_n + x_n[partner_n]) / 2


def both(kept_n: Tensor, partner_n: Tensor | None) -> Tensor:
    """Keep the nodes whose partner is kept as well; `kept_n` itself if nothing is tied."""
    return kept_n if partner_n is None else kept_n & kept_n[partner_n]
