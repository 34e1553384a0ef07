"""A task with a finite set of pairs, split as its pairs say or in fixed proportions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.tasks.task import Kind, Pair, Split, Task


@dataclass(frozen=True)
class FixedPairs:
    """The `fixed` of a task: pairs each with its split, or all without."""

    pairs: tuple[tuple[Pair, Split | None], ...]

    def __call__(self, split: Split, seed: int) -> list[Pair]:
        """The pairs of a split: as marked, or else half to train, a quarter each to select and test."""
        if self.pairs[0][1] is not None:
            return [pair for pair, own in self.pairs if own == split]
        pairs = [pair for pair, _ in self.pairs]
        random.Random(derive_seed(seed, "fixed pairs")).shuffle(pairs)
        quarter = max(1, len(pairs) // 4)
        parts = {
            "select": pairs[:quarter],
            "test": pairs[quarter : 2 * quarter],
            "train": pairs[2 * quarter :],
        }
        return parts[split]


@dataclass(frozen=True)
class AnyPair:
    """The `make` of such a task: one of the pairs."""

    pairs: FixedPairs

    def __call__(self, rng: random.Random) -> Pair:
        return rng.choice(self.pairs.pairs)[0]


def task_of_pairs(
    name: str,
    pairs: Sequence[tuple[Pair, Split | None]],
    description: str = "",
    caveat: str = "",
    kind: Kind | None = None,
    same_last_token: bool = True,
) -> Task:
    """Make the task that asks `pairs`, each with its split, or all without. The rest is as in `Task`."""
    fixed = FixedPairs(tuple(pairs))
    return Task(name, description, AnyPair(fixed), caveat, kind, same_last_token, fixed)
