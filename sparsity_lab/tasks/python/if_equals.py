"""A condition compares, a statement assigns."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1)
    name = pen.name()
    return Pair(f"{start}{pad}if {name}", f"{start}{pad}{name}", (" ==", " ="))


TASK = Task(
    "if_equals",
    "if x is followed by ==, a statement's x by =",
    make,
    kind="look-up",
)
