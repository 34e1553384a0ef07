"""Turn a ranking of the nodes into a circuit's nodes, for every finder (Gao et al. 2025, §2.2, App. A.5).

A circuit is found in four steps (`search.py` calls them):
1. a finder ranks the nodes; the paper's finder ranks them by the tau of learned gates (`mask_learning.py`);
2. `smallest_prefixes` bisects for the shortest prefix of the ranking whose selection loss meets the target;
3. `polish` drops kept nodes in ascending order of estimated effect while the target is met. The paper has no
   such step, and its circuits keep nodes that are not needed;
4. `edges.list_edges` lists the nonzero weights between the kept nodes.

Shape suffixes: n all nodes, k kept nodes, b rows of a task's batch.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial

import torch
from torch import Tensor

from sparsity_lab.circuits.evaluator import CircuitEvaluator, two_way_loss
from sparsity_lab.circuits.mask_learning import gate_nodes
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.tying import average, both
from sparsity_lab.tasks.batch import logit_difference


def smallest_prefixes(
    evaluator: CircuitEvaluator, order_n: Tensor, targets: Iterable[float], guess: int = 1
) -> dict[float, Tensor]:
    """Return the shortest prefix of `order_n` that meets each target (nats), as a boolean mask (n).

    Targets that the whole ranking misses are omitted. Bisection starts at size `guess`.
    """

    def kept(size: int) -> Tensor:
        return both(torch.zeros(len(order_n)).bool().index_fill(0, order_n[:size], True), evaluator.partner_n)

    @cache  # several targets try the same sizes
    def loss(size: int) -> float:
        return evaluator.select_loss(kept(size))

    def meets(target: float, size: int) -> bool:
        return loss(size) <= target

    sizes = {target: smallest_size(len(order_n), partial(meets, target), guess) for target in targets}
    return {target: kept(size) for target, size in sizes.items() if size is not None}


def polish(evaluator: CircuitEvaluator, kept_n: Tensor, target: float, rounds: int = 4) -> Tensor:
    """Drop as many kept nodes as `target` allows, in ascending order of estimated effect."""
    for _ in range(rounds):
        fewer_n = _drop_prefix(evaluator, kept_n, target)
        if torch.equal(fewer_n, kept_n):
            break
        kept_n = fewer_n
    return kept_n


def _drop_prefix(evaluator: CircuitEvaluator, kept_n: Tensor, target: float) -> Tensor:
    nodes_k = kept_n.nonzero().flatten()
    order_k = nodes_k[node_effects(evaluator, kept_n)[nodes_k].argsort(stable=True)]
    compacted = evaluator.compacted(kept_n)

    def without(size: int) -> Tensor:
        return both(kept_n.index_fill(0, order_k[:size], False), evaluator.partner_n)

    def misses(size: int) -> bool:
        return evaluator.select_loss(without(size), compacted) > target

    too_many = smallest_size(len(order_k), misses) or len(order_k)  # the last node is never dropped
    return without(too_many - 1)


def node_effects(evaluator: CircuitEvaluator, kept_n: Tensor, whole: bool = False) -> Tensor:
    """Return a first-order estimate of the rise in selection loss when each kept node is frozen (n).

    Only the order is used. With `whole`, dropped nodes have a value too: by how much their return lowers it.
    """
    select, layout = evaluator.data.select, NodeLayout(evaluator.model.config)
    tau_n = torch.where(kept_n, 1.0, -1.0).requires_grad_()
    net = evaluator.model if whole else evaluator.compacted(kept_n)
    logit_diff_b = logit_difference(net, select, gate_nodes(layout, tau_n, evaluator.means_n, 1.0))
    calibration = evaluator.calibration(logit_diff_b.detach())
    loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b)
    (slope_n,) = torch.autograd.grad(loss, tau_n)
    return average(-slope_n, evaluator.partner_n)  # opening a gate lowers the loss by this much per unit


def smallest_size(most: int, holds: Callable[[int], bool], guess: int = 1) -> int | None:
    """Return the smallest size from 1 to `most` for which `holds` is true; None if there is none.

    `holds` must stay true above that size. The search starts at `guess`: it doubles the size until `holds` is
    true, or halves it until `holds` is false. It then bisects the interval in between.
    """
    low, high = 1, None  # the answer is at least `low`, and at most `high`
    size = min(max(guess, 1), most)
    while high is None or low < high:
        if holds(size):
            high = size
        elif size == most:
            return None
        else:
            low = size + 1
        if high is None:
            size = min(2 * size, most)
        elif low == 1:
            size = max(1, size // 2)
        else:
            size = (low + high) // 2
    return high
