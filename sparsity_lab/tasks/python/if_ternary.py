"""A condition is followed by a colon in a statement, by `else` in a conditional expression."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1)
    target, value, name = pen.names(3)
    return Pair(f"{start}{pad}if {name}", f"{start}{pad}{target} = {value} if {name}", (":\n", " else"))


TASK = Task(
    "if_ternary",
    "if x is followed by : in a statement, by else in a conditional expression",
    make,
    kind="position",
)
