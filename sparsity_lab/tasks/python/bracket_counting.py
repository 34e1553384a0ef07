"""Close as many brackets as are open."""

import random

from sparsity_lab.data.lexicon import COLLECTIONS, DIGITS, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    before = f"{start}{pad}{pen.pick(COLLECTIONS)} = "
    row = ", ".join([pen.pick(DIGITS) for _ in range(pen.count(2, 4))])
    return Pair(f"{before}[{row}", f"{before}[[{row}", ("]\n", "]]\n"))


TASK = Task(
    "bracket_counting",
    "a flat list ends in ], a nested one in ]]",
    make,
    caveat="the answers carry the newline that follows them in the corpus",
    kind="look-up",
)
