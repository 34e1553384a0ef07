"""The nodes of a model in one flat order (Gao et al. 2025, §2.2).

A node is one channel of one site in one layer, shared by all positions. A set of nodes is a boolean vector
over all nodes. `NodeLayout` maps each site and layer to its slice of that vector.

Shape suffixes: n all nodes, b batch, t time, c channels of a site.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import on_nodes
from sparsity_lab.model.transformer import ModelConfig, Transformer


class Group(NamedTuple):
    """The nodes of one site in one layer, at `start` to `stop` in the flat order."""

    site: Site
    layer: int
    start: int
    stop: int


@dataclass(frozen=True)
class NodeLayout:
    """The flat order of a model's nodes: layer by layer, site by site, channel by channel."""

    config: ModelConfig

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Every node site of every layer, in order."""
        groups, start = [], 0
        for layer in range(self.config.n_layer):
            for site in self.config.node_sites:
                groups.append(Group(site, layer, start, start + self.config.width(site)))
                start = groups[-1].stop
        return tuple(groups)

    @cached_property
    def slices(self) -> dict[tuple[Site, int], slice]:
        """The slice of each site and layer in the flat order."""
        return {(g.site, g.layer): slice(g.start, g.stop) for g in self.groups}

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.groups[-1].stop

    def nodes(self, kept_n: Tensor) -> tuple[Node, ...]:
        """List the kept nodes in the flat order."""
        return tuple(
            Node(layer=g.layer, site=g.site.value, channel=channel)
            for g in self.groups
            for channel in kept_n[g.start : g.stop].nonzero().flatten().tolist()
        )

    def mask(self, nodes: Iterable[Node]) -> Tensor:
        """Return a boolean vector over all nodes that is true at `nodes`.

        Raises:
            KeyError: a node is not in this model.
        """
        kept_n = torch.zeros(self.size, dtype=torch.bool)
        for node in nodes:
            place = self.slices[Site(node.site), node.layer]
            if not 0 <= node.channel < place.stop - place.start:
                raise KeyError(node)
            kept_n[place.start + node.channel] = True
        return kept_n


@torch.no_grad()
def mean_activations(model: Transformer, batches: Iterable[Tensor]) -> Tensor:
    """Return the mean of every node over all positions of the token batches (n).

    The values are those that a tap sees, after AbsTopK. Callers pass validation text.
    """
    layout = NodeLayout(model.config)
    total_n = torch.zeros(layout.size, dtype=torch.float64)
    positions = 0

    def add(x_btc: Tensor, place: slice) -> Tensor:
        total_n[place] += x_btc.flatten(0, 1).double().sum(0).cpu()
        return x_btc

    for tokens_bt in batches:
        model(tokens_bt, on_nodes(layout, add))
        positions += tokens_bt.numel()
    return (total_n / positions).float()
