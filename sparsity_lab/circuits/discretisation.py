"""From a ranking of the nodes to a circuit's nodes, for every finder (Gao et al. 2025, §2.2, App. A.5).

A circuit is found in four steps (`search.py` calls them):
1. a finder ranks the nodes, in the paper by learned gates (`mask_learning.learn_masks`, then tau descending);
2. `smallest_prefixes` bisects for the shortest prefix of the ranking whose selection loss meets the target;
3. `polish` drops kept nodes, those of least estimated effect first, as long as the target is met. This step
   is ours; the paper's pruning leaves nodes that can go;
4. `edges.list_edges` lists the nonzero weights between the kept nodes.

Shape suffixes: n all nodes, k kept nodes, b rows of a task's batch.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial

import torch
from torch import Tensor

from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.evaluator import CircuitEvaluator, two_way_loss
from sparsity_lab.circuits.mask_learning import gate_nodes
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.tasks.batch import logit_difference


def smallest_prefixes(
    evaluator: CircuitEvaluator, order_n: Tensor, targets: Iterable[float], guess: int = 1
) -> dict[float, Tensor]:
    """The shortest prefix of `order_n` that meets each target, boolean (n), by target in nats.

    A target that even all nodes miss is left out. `guess`: the size at which bisection starts.
    """

    def kept(size: int) -> Tensor:
        return torch.zeros(len(order_n), dtype=torch.bool).index_fill(0, order_n[:size], True)

    @cache  # the targets try the same sizes
    def loss(size: int) -> float:
        return evaluator.select_loss(kept(size))

    def meets(target: float, size: int) -> bool:
        return loss(size) <= target

    prefixes = {}
    for target in targets:
        size = bisect(len(order_n), partial(meets, target), guess)
        if size is not None:
            prefixes[target] = kept(size)
    return prefixes


def polish(evaluator: CircuitEvaluator, kept_n: Tensor, target: float, rounds: int = 4) -> Tensor:
    """Drop kept nodes, those of least estimated effect first, as many as still meet `target`."""
    for _ in range(rounds):
        fewer_n = _drop_prefix(evaluator, kept_n, target)
        if torch.equal(fewer_n, kept_n):
            break
        kept_n = fewer_n
    return kept_n


def _drop_prefix(evaluator: CircuitEvaluator, kept_n: Tensor, target: float) -> Tensor:
    nodes_k = kept_n.nonzero().flatten()
    order_k = nodes_k[node_effects(evaluator, kept_n)[nodes_k].argsort(stable=True)]
    compacted = compact(evaluator.model, kept_n, evaluator.means_n)

    def without(size: int) -> Tensor:
        return kept_n.index_fill(0, order_k[:size], False)

    def misses(size: int) -> bool:
        return evaluator.select_loss(without(size), compacted) > target

    too_many = bisect(len(order_k), misses) or len(order_k)  # the last node is never dropped
    return without(too_many - 1)


def node_effects(evaluator: CircuitEvaluator, kept_n: Tensor) -> Tensor:
    """First-order estimate of the rise of the selection loss when a kept node is frozen (n).

    Right up to a constant factor, and for kept nodes only: only the order of the values is used.
    """
    select, layout = evaluator.data.select, NodeLayout(evaluator.model.config)
    tau_n = torch.where(kept_n, 1.0, -1.0).requires_grad_()
    compacted = compact(evaluator.model, kept_n, evaluator.means_n)
    logit_diff_b = logit_difference(compacted, select, gate_nodes(layout, tau_n, evaluator.means_n, 1.0))
    calibration = evaluator.calibration(logit_diff_b.detach())
    loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b)
    (slope_n,) = torch.autograd.grad(loss, tau_n)
    return -slope_n  # opening a gate lowers the loss by this much per unit


def bisect(most: int, holds: Callable[[int], bool], guess: int = 1) -> int | None:
    """Smallest size from 1 to `most` for which `holds` is true, if it stays true above; None if never.

    From the guess, the size is doubled until it holds, or halved until it does not; then the interval between
    is halved.
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
