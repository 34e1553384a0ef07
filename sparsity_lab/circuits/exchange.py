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
from sparsity_lab.circuits.evaluator import CircuitEvaluator, two_way_loss
from sparsity_lab.circuits.mask_learning import gate_nodes
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.tying import average, both
from sparsity_lab.tasks.batch import logit_difference

PATIENCE = 16  # nodes in a row that cannot go, after which single drops end
SHARES = (
    0.3,
    0.1,
    0.03,
)  # of the circuit's size come back in a round; the next share follows a round in vain


def exchange(evaluator: CircuitEvaluator, kept_n: Tensor, target: float, rounds: int) -> Tensor:
    """Return nodes (n) that meet `target` (nats), with no more edges than `kept_n`, which does."""
    best_n = drop_singly(evaluator, kept_n, target)
    shares = list(SHARES)
    for _ in range(rounds):
        if not shares:
            break
        count = max(1, round(shares[0] * int(best_n.sum())))
        wider_n = with_most_helpful(evaluator, best_n, count)
        if evaluator.select_loss(wider_n) > target:  # first-order estimates can err
            shares.pop(0)
            continue
        other_n = drop_singly(evaluator, polish(evaluator, wider_n, target), target)
        if _size(evaluator, other_n) < _size(evaluator, best_n):
            best_n = other_n
        else:
            shares.pop(0)
    return best_n


def with_most_helpful(evaluator: CircuitEvaluator, kept_n: Tensor, count: int) -> Tensor:
    """Add the `count` dropped nodes whose return lowers the selection loss most, to first order."""
    select, layout = evaluator.data.select, NodeLayout(evaluator.model.config)
    tau_n = torch.where(kept_n, 1.0, -1.0).requires_grad_()
    logit_diff_b = logit_difference(
        evaluator.model, select, gate_nodes(layout, tau_n, evaluator.means_n, 1.0)
    )
    calibration = evaluator.calibration(logit_diff_b.detach())
    loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b)
    (slope_n,) = torch.autograd.grad(loss, tau_n)
    slope_n = average(slope_n, evaluator.partner_n).masked_fill(kept_n, torch.inf)
    return both(kept_n.index_fill(0, slope_n.argsort(stable=True)[:count], True), evaluator.partner_n)


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
