"""A lambda's argument is followed by a colon, a function's name by a parenthesis."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = opening(pen, 0, 0)
    target, name = pen.names(2)
    before = f"{start}\n\n"
    return Pair(f"{before}{target} = lambda {name}", f"{before}def {name}", (":", "():\n"))


TASK = Task(
    "lambda_func",
    "lambda x is followed by :, def x by (",
    make,
    caveat="the parenthesis carries what follows it: a function named by a noun takes no argument",
    kind="look-up",
)
