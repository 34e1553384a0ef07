"""Exchange: a local search from a polished circuit to a smaller one.

Learned masks end in local minima, and `discretisation.polish` only drops nodes. Each round brings dropped
nodes back, those whose return would lower the loss most. It then drops nodes one by one, while the target is
met. The paper has no such step.

Shape suffixes: n all nodes, k kept nodes, b rows of a task's batch.
"""

import torch
from torch import Tensor

from sparsity_lab.circuits.discretisation import node_effects, polish
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.tying import both

PATIENCE = 16  # nodes in a row that cannot go, after which single drops end
SHARES = (0.3, 0.1, 0.03)
"""Nodes that come back in a round, as shares of the circuit; after a round in vain the next share follows."""


def exchange(evaluator: CircuitEvaluator, kept_n: Tensor, target: float, rounds: int) -> Tensor:
    """Return nodes (n) that meet `target` (nats), with no more edges than `kept_n`, which does."""
    best_n, in_vain = drop_singly(evaluator, kept_n, target), 0
    for _ in range(rounds):
        count = max(1, round(SHARES[in_vain] * int(best_n.sum())))
        wider_n = with_most_helpful(evaluator, best_n, count)
        other_n = drop_singly(evaluator, polish(evaluator, wider_n, target), target)
        if _size(evaluator, other_n) < _size(evaluator, best_n):
            best_n = other_n
        elif (in_vain := in_vain + 1) == len(SHARES):
            break
    return best_n


def with_most_helpful(evaluator: CircuitEvaluator, kept_n: Tensor, count: int) -> Tensor:
    """Add the `count` dropped nodes whose return lowers the selection loss most, to first order."""
    effect_n = node_effects(evaluator, kept_n, whole=True).masked_fill(kept_n, -torch.inf)
    helpful = effect_n.argsort(descending=True, stable=True)[:count]
    if evaluator.partner_n is not None:
        helpful = torch.cat([helpful, evaluator.partner_n[helpful]])
    return kept_n.index_fill(0, helpful, True)


def drop_singly(evaluator: CircuitEvaluator, kept_n: Tensor, target: float) -> Tensor:
    """Try to drop each node by itself, in ascending order of estimated effect, while `target` (nats) is met.

    It gives up after `PATIENCE` nodes in a row that are needed.
    """
    nodes_k, compacted, needed = kept_n.nonzero().flatten(), evaluator.compacted(kept_n), 0
    for node in nodes_k[node_effects(evaluator, kept_n)[nodes_k].argsort(stable=True)]:
        fewer_n = both(kept_n.index_fill(0, node, False), evaluator.partner_n)
        if fewer_n.any() and evaluator.select_loss(fewer_n, compacted) <= target:
            kept_n, needed = fewer_n, 0
        elif (needed := needed + 1) == PATIENCE:
            break
    return kept_n


def _size(evaluator: CircuitEvaluator, kept_n: Tensor) -> tuple[int, int]:
    return count_edges(evaluator.model, kept_n), int(kept_n.sum())
