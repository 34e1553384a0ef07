"""A task: a binary choice of the next token, asked by pairs of prompts that differ only in what decides it.

(Gao et al. 2025, Table 1.) For example `x = set()\nx` and `x = ""\nx` with the answers `.add` and ` +=`. The
model is asked at each prompt's last token; `batch.py` makes rows of tokens of the pairs.

A hash of each prompt decides if it is for training, selection or test, and a pair is asked only if both its
prompts fall into the same split. So the splits never overlap, whatever the seed.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed

Split = Literal["train", "select", "test"]
Kind = Literal["look-up", "position", "copy", "state", "count", "binding"]
WAIVED = (
    "the prompts of a pair may end in different tokens, so the last token alone may answer, without a circuit"
)
_SHARES: tuple[Split, ...] = ("train", "train", "select", "test")
_ATTEMPTS = 64  # draws for each pair asked for; both prompts fall into a given quarter in one of 16


@dataclass(frozen=True)
class Pair:
    """Two prompts that differ only in what decides the answer, and each one's right answer.

    `place` is where the pair was read, for messages.
    """

    positive: str
    negative: str
    answers: tuple[str, str]
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Task:
    """A question: `make` writes one pair.

    `caveat`: how the wording departs from Table 1, or which shortcut answers it. `kind`: what decides.

    - look-up: one token says the answer, wherever it stands.
    - position: a keyword on the same line decides; the same keywords stand on other lines.
    - copy: the answer is a name of the prompt.
    - state: what is open and not yet closed.
    - count: how many are open.
    - binding: a value belongs to a name.

    `same_last_token`: whether both prompts of a pair must end in the same token. Without the rule, the last
    token's embedding and bigram row may tell the answers apart: `caveats` says so.

    `fixed` gives the pairs of a split, by seed, if there is a finite set of them (`fixed_pairs.py`).
    """

    name: str
    description: str
    make: Callable[[random.Random], Pair]
    caveat: str = ""
    kind: Kind | None = None
    same_last_token: bool = True
    fixed: Callable[[Split, int], list[Pair]] | None = None

    @property
    def caveats(self) -> str:
        """The caveat, and what follows where the rule of the same last token is waived."""
        return "; ".join(text for text in (self.caveat, "" if self.same_last_token else WAIVED) if text)


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
