"""Prune the edges between a circuit's nodes, after any finder.

Gao et al. (2025, §2.2) prune nodes and name pruning edges as the better goal. A dropped edge passes the mean
of its source instead of its value: its weight becomes zero, and its mean contribution moves into the bias.
For the attention-output matrix, this assumes that the head's attention sums to one.

1. Estimate the cost of dropping each edge: -weight · (dL/dweight - mean · dL/dbias).
2. Drop edges in ascending order of their cost, as many as the target allows (found by bisection).
3. Do the same in ascending order of the cost's size, and take the order that drops more. A first-order
   estimate is wrong for strong edges: one that seems to raise the loss can be the one that the task needs.
4. Repeat until no edge can be dropped.
"""

import copy
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsity_lab.circuits.circuit import Circuit, Edge, PrunedEdges
from sparsity_lab.circuits.closing import close, with_children
from sparsity_lab.circuits.dropping import most_droppable
from sparsity_lab.circuits.evaluator import CircuitEvaluator, two_way_loss
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import MATRICES, Site
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import logit_difference

Matrix = tuple[int, Site, Site]  # its layer, the site it reads and the site it writes
_NAMES = {(source, target): name for name, source, target in MATRICES}


class Entries(NamedTuple):
    """Edges of one matrix: their indices in the source list, and their rows and columns in the matrix."""

    place_k: list[int]
    row_k: Tensor
    column_k: Tensor


def entries(edges: Sequence[Edge]) -> dict[Matrix, Entries]:
    """Group the edges by matrix."""
    places = defaultdict[Matrix, list[int]](list)
    for place, edge in enumerate(edges):
        places[edge.target.layer, Site(edge.source.site), Site(edge.target.site)].append(place)
    return {
        matrix: Entries(
            place_k,
            torch.tensor([edges[place].target.channel for place in place_k]),
            torch.tensor([edges[place].source.channel for place in place_k]),
        )
        for matrix, place_k in places.items()
    }


@torch.no_grad()
def without_edges(model: Transformer, means_n: Tensor, dropped: Sequence[Edge]) -> Transformer:
    """Return a copy of `model` in which the edges `dropped` pass their sources' means.

    The copy shares the tensors that do not change.
    """
    by_matrix, slices = entries(dropped), NodeLayout(model.config).slices
    changed, linears = _with_copies(model, by_matrix)
    for matrix, (_, row_k, column_k) in by_matrix.items():
        layer, source, _ = matrix
        linear = linears[matrix]
        mean_k = means_n[slices[source, layer]][column_k]
        linear.bias.index_add_(0, row_k, linear.weight[row_k, column_k] * mean_k)
        linear.weight[row_k, column_k] = 0
    return changed


def prune_edges(evaluator: CircuitEvaluator, circuit: Circuit, rounds: int = 8) -> Circuit:
    """Return `circuit` with `pruned` set to the fewest edges found that meet its target.

    The nodes stay. A circuit that misses its target with all edges keeps all of them. Losses and costs are
    kept in the evaluator's memory: for another target of the same nodes the search begins with the same sets.

    Shape suffixes: e edges, as indices in the circuit's list; k a part of them.
    """
    kept_n = NodeLayout(evaluator.model.config).mask(circuit.nodes)
    losses: dict[bytes, float]
    costs: dict[bytes, Tensor]
    losses, costs = evaluator.memory.setdefault(
        f"edges between {circuit.nodes} {evaluator.selection} {evaluator.closed}", ({}, {})
    )

    def named(index_e: Tensor) -> list[Edge]:
        return [circuit.edges[index] for index in index_e.tolist()]

    def without(gone_e: Tensor) -> CircuitEvaluator:
        return replace(evaluator, model=without_edges(evaluator.model, evaluator.means_n, named(gone_e)))

    def misses(left_e: Tensor, gone_e: Tensor, index_k: Tensor) -> bool:
        gone_e = torch.cat([gone_e, left_e[index_k]])
        if (key := _digest(gone_e)) not in losses:
            losses[key] = without(gone_e).select_loss(kept_n)
        return losses[key] > circuit.target

    kept_e = torch.arange(len(circuit.edges))
    dropped_e = kept_e[:0]
    for _ in range(rounds):
        if len(kept_e) == 0:
            break
        if (key := _digest(kept_e, dropped_e)) not in costs:
            costs[key] = torch.tensor(edge_costs(evaluator, kept_n, named(kept_e), named(dropped_e)))
        size, order_e = most_droppable(costs[key], partial(misses, kept_e, dropped_e))
        if size == 0:
            break
        kept_e, dropped_e = kept_e[order_e[size:]], torch.cat([dropped_e, kept_e[order_e[:size]]])
    calibration, select, test = without(dropped_e).scores(kept_n)
    edges = tuple(named(kept_e.sort().values))
    pruned = PrunedEdges(edges=edges, calibration=calibration, select=select, test=test)
    return circuit.model_copy(update={"pruned": pruned})


def _digest(*index_e: Tensor) -> bytes:
    """A short key of lists of edges, in their order: the order decides how sums are rounded."""
    found = hashlib.blake2b(digest_size=16)
    for one_e in index_e:
        found.update(len(one_e).to_bytes(8, "little") + one_e.numpy().tobytes())
    return found.digest()


def edge_costs(
    evaluator: CircuitEvaluator, kept_n: Tensor, kept: Sequence[Edge], dropped: Sequence[Edge]
) -> list[float]:
    """Return a first-order estimate of the rise in selection loss for dropping each edge of `kept`, in order.

    The edges in `dropped` are already dropped.
    """
    means_n, select = evaluator.means_n, evaluator.data.select
    model = without_edges(evaluator.model, means_n, dropped)
    model = close(model, kept_n) if evaluator.closed else model
    layout, by_matrix = NodeLayout(model.config), entries(kept)
    model, linears = _with_copies(model, by_matrix)
    for linear in linears.values():
        linear.requires_grad_()
    logit_diff_b = logit_difference(model, select, ablate(layout, kept_n, means_n))
    calibration = evaluator.calibration(logit_diff_b.detach())
    two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b).backward()
    costs = [0.0] * len(kept)
    for matrix, (place_k, row_k, column_k) in by_matrix.items():
        (layer, source, _), linear = matrix, linears[matrix]
        assert linear.weight.grad is not None
        assert linear.bias.grad is not None
        mean_k = means_n[layout.slices[source, layer]][column_k]
        slope_k = linear.weight.grad[row_k, column_k] - mean_k * linear.bias.grad[row_k]
        cost_k = -linear.weight.detach()[row_k, column_k] * slope_k
        for place, cost in zip(place_k, cost_k.tolist(), strict=True):
            costs[place] = cost
    return costs


def _with_copies(
    model: Transformer, matrices: Iterable[Matrix]
) -> tuple[Transformer, dict[Matrix, nn.Linear]]:
    """Return a copy of `model` with weights and biases of its own in `matrices`, and these layers.

    A missing bias is added as zeros.
    """
    blocks, linears = list(model.blocks), dict[Matrix, nn.Linear]()
    for layer, source, target in matrices:
        sublayer, name = _NAMES[source, target].split(".")
        linear = blocks[layer].get_submodule(_NAMES[source, target])
        assert isinstance(linear, nn.Linear)
        own = copy.copy(linear)
        bias_o = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias
        tensors = {"weight": linear.weight, "bias": bias_o}
        own._parameters = {
            key: nn.Parameter(tensor.detach().clone(), requires_grad=False) for key, tensor in tensors.items()
        }
        inner = with_children(blocks[layer].get_submodule(sublayer), **{name: own})
        blocks[layer] = with_children(blocks[layer], **{sublayer: inner})
        linears[layer, source, target] = own
    return with_children(model, blocks=nn.ModuleList(blocks)), linears
