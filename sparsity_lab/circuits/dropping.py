"""How many parts of a circuit, edges or tokens, can be dropped together.

First-order costs can have the wrong sign, and a part at the front that must stay blocks the bisection. So the
order of the costs' sizes is tried, too.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from sparsity_lab.circuits.discretisation import smallest_size


def most_droppable(cost_k: Tensor, misses: Callable[[Tensor], bool]) -> tuple[int, Tensor]:
    """Return how many parts can go together, and an order of the parts (k) in which the first so many can.

    `cost_k`: the estimated rise in loss when a part is dropped. `misses` tells whether the circuit misses its
    target without the parts of these indices.
    """

    def too_many(order_k: Tensor, size: int) -> bool:
        return misses(order_k[:size])

    found = []
    for rank_k in (cost_k, cost_k.abs()):
        order_k = rank_k.argsort(stable=True)
        size = smallest_size(len(order_k), partial(too_many, order_k), guess=len(order_k) // 2)
        found.append(((size or len(order_k) + 1) - 1, order_k))
    return max(found, key=lambda one: one[0])
