"""A for loop's variable is followed by `in`, a while loop's condition by a colon."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    name = pen.name()
    return Pair(f"{start}{pad}for {name}", f"{start}{pad}while {name}", (" in", ":\n"))


TASK = Task(
    "for_while",
    "for x is followed by in, while x by :",
    make,
    kind="look-up",
)
