"""A finder from outside the package, for tests: nodes in a random order, but for those that come ahead."""

from typing import Self

import torch

from sparsity_lab.circuits.discretisation import smallest_prefixes
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found


class Config(FinderConfigBase):
    ahead: tuple[int, ...] = ()
    tries: int = 1

    def for_controls(self, give_up: float | None) -> Self:
        return self.model_copy(update={"tries": 0})


def find(
    evaluator: CircuitEvaluator, config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    size = len(evaluator.means_n)
    order_n = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    ahead_n = torch.tensor(config.ahead, dtype=torch.long)
    order_n = torch.cat([ahead_n, order_n[~torch.isin(order_n, ahead_n)]])
    return {
        target: Found(kept_n, {"main": targets[0], "tries": config.tries})
        for target, kept_n in smallest_prefixes(evaluator, order_n, targets).items()
    }
