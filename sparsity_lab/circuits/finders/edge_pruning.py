"""Edges pruned within a circuit's nodes, which the paper calls the better goal (Gao et al. 2025, §2.2).

A dropped edge passes the mean of its source instead of its value: its weight goes, and its mean contribution
into the bias. In the attention-output matrix that mean supposes that the head's attention adds up to one.

1. estimate what each edge's dropping costs, weight · (slope in the weight - mean · slope in the bias);
2. drop those that cost least, as many as bisection finds that still meet the target; repeat.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from sparsity_lab.circuits.ablation import ablate
from sparsity_lab.circuits.calibration import two_way_loss
from sparsity_lab.circuits.circuit import Circuit, Edge
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.evaluator import Pruner, bisect
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import MATRICES, Site
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import logit_difference

_NAMES = {(source, target): name for name, source, target in MATRICES}


def without_edges(model: Transformer, means_n: Tensor, dropped: list[Edge]) -> Transformer:
    """A copy of `model` in which the edges `dropped` pass their sources' means."""
    changed = copy.deepcopy(model)
    slices = NodeLayout(model.config).slices
    with torch.no_grad():
        for edge in dropped:
            linear = _linear(changed, edge)
            row, column = edge.target.channel, edge.source.channel
            mean = means_n[slices[Site(edge.source.site), edge.source.layer]][column]
            linear.bias[row] += linear.weight[row, column] * mean
            linear.weight[row, column] = 0
    return changed


def prune_edges(pruner: Pruner, circuit: Circuit, rounds: int = 3) -> Circuit:
    """`circuit` with as few of its edges as still meet its target on the selection pairs; the nodes stay."""
    kept_n = NodeLayout(pruner.model.config).mask(circuit.nodes)
    kept, dropped = list(circuit.edges), list[Edge]()

    def narrow(gone: list[Edge]) -> Transformer:
        return compact(without_edges(pruner.model, pruner.means_n, gone), kept_n, pruner.means_n)

    def misses(gone: list[Edge], order: list[Edge], size: int) -> bool:
        return pruner.select_loss(kept_n, narrow([*gone, *order[:size]])) > circuit.target

    for _ in range(rounds):
        cost = edge_costs(pruner, kept_n, kept, dropped)
        kept.sort(key=lambda edge: cost[edge])
        too_many = bisect(len(kept), partial(misses, dropped, kept))
        size = (too_many or len(kept) + 1) - 1
        if size == 0:
            break
        dropped, kept = dropped + kept[:size], kept[size:]
    model = narrow(dropped)
    select_b = pruner.difference(kept_n, pruner.data.select, model)
    calibration, select, test = pruner.scored(select_b, pruner.difference(kept_n, pruner.data.test, model))
    left = set(kept)
    return circuit.model_copy(
        update={
            "edges": tuple(edge for edge in circuit.edges if edge in left),
            "calibration": calibration,
            "select": select,
            "test": test,
            "provenance": circuit.provenance | {"edges_before": len(circuit.edges)},
        }
    )


def edge_costs(pruner: Pruner, kept_n: Tensor, kept: list[Edge], dropped: list[Edge]) -> dict[Edge, float]:
    """First-order rise of the selection loss when an edge is dropped, those of `dropped` being so already."""
    model, select = without_edges(pruner.model, pruner.means_n, dropped), pruner.data.select
    layout = NodeLayout(model.config)
    linears = {id(linear): linear for linear in (_linear(model, edge) for edge in kept)}
    for linear in linears.values():
        linear.requires_grad_(True)
    logit_diff_b = logit_difference(model, select, ablate(layout, kept_n, pruner.means_n))
    calibration = pruner.calibration(logit_diff_b.detach())
    two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b).backward()
    costs = {}
    for edge in kept:
        linear, row, column = _linear(model, edge), edge.target.channel, edge.source.channel
        mean = pruner.means_n[layout.slices[Site(edge.source.site), edge.source.layer]][column]
        assert linear.weight.grad is not None
        assert linear.bias.grad is not None
        slope = linear.weight.grad[row, column] - mean * linear.bias.grad[row]
        costs[edge] = -float(linear.weight[row, column].detach() * slope)
    return costs


def _linear(model: Transformer, edge: Edge) -> nn.Linear:
    name = _NAMES[Site(edge.source.site), Site(edge.target.site)]
    linear = model.blocks[edge.target.layer].get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear
