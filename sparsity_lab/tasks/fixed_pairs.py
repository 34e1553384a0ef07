"""A finite set of pairs, split as its pairs say or in fixed proportions."""

import random
from dataclasses import dataclass

from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.tasks.task import Pair, Split


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
