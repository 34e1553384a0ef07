"""A task: a binary choice of the next token, asked by pairs of prompts that differ only in what decides it.

(Gao et al. 2025, Table 1.) For example `x = set()\nx` and `x = ""\nx` with the answers `.add` and ` +=`. The
model is asked at each prompt's last token. `drawing.py` draws the pairs of a split, and `batch.py` makes rows
of tokens of them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "select", "test"]
Kind = Literal["look-up", "position", "copy", "state", "count", "binding"]
WAIVED = "the prompts of a pair may end in different tokens, so the last token alone may answer"


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

    `caveat`: how the wording departs from Table 1, or which shortcut answers it. `kind`: what decides. At a
    look-up one token says the answer, wherever it stands. At a position a keyword of the same line decides,
    while other lines hold the same keywords. A copy's answer is a name of the prompt. A state is what is open
    and not yet closed, a count how many are open, and a binding the value that a name has.
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
