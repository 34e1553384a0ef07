"""A comparison with True is a condition and takes a colon, an assignment of True does not."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1)
    name = pen.name()
    return Pair(f"{start}{pad}if {name} == True", f"{start}{pad}{name} = True", (":\n", "\n"))


TASK = Task(
    "var_if",
    "if x == True is followed by :, x = True by the end of the line",
    make,
    kind="look-up",
)
