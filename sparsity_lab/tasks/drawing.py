"""Draw the pairs of a task for training, selection or test.

A hash of each prompt decides its split, and a pair is asked only if both its prompts fall into the same one.
So the splits never overlap, whatever the seed.
"""

import random
from collections.abc import Iterator
from typing import get_args

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.tasks.task import Pair, Split, Task

_SHARES: tuple[Split, ...] = ("train", "train", "select", "test")
_ATTEMPTS = 64  # draws for each pair asked for; both prompts fall into a given quarter in one of 16


def make_pairs(task: Task, split: Split, n: int, seed: int) -> list[Pair]:
    """The first n pairs of the split that the seed draws, no prompt twice; of fixed pairs at most n.

    Raises:
        UserError: unknown split, or the generator fails or does not have that many.
    """
    if split not in get_args(Split):
        raise UserError(f"split: {split!r}: allowed: {', '.join(get_args(Split))}")
    if task.fixed is not None:
        return task.fixed(split, seed)[:n]
    rng = random.Random(derive_seed(seed, "pairs", task.name, split))
    pairs: list[Pair] = []
    seen: set[str] = set()
    for pair in _draw(task, rng, _ATTEMPTS * n):
        if len(pairs) == n:
            break
        prompts = {pair.positive, pair.negative}
        if all(_split_of(prompt) == split for prompt in prompts) and not seen & prompts:
            pairs.append(pair)
            seen |= prompts
    if len(pairs) < n:
        raise UserError(f"task {task.name}: only {len(pairs)} different pairs for {split}, {n} wanted")
    return pairs


def _draw(task: Task, rng: random.Random, attempts: int) -> Iterator[Pair]:
    for _ in range(attempts + 1):
        try:
            pair = task.make(rng)
        except Exception as error:
            raise UserError(f"task {task.name}: make: {type(error).__name__}: {error}") from error
        texts = (pair.positive, pair.negative, *pair.answers) if isinstance(pair, Pair) else ()
        if len(texts) != 4 or not all(isinstance(text, str) for text in texts):
            raise UserError(f"task {task.name}: make returns {pair!r}; allowed: a Pair of texts, two answers")
        yield pair


def _split_of(prompt: str) -> Split:
    return _SHARES[derive_seed(0, prompt) % len(_SHARES)]
