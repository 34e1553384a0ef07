"""A swap ends in the variable that it began with."""

import random

from sparsity_lab.circuits.prompts import opening
from sparsity_lab.circuits.task import Pair, Task
from sparsity_lab.data.lexicon import Pen


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    x, y = pen.names(2)
    return Pair(f"{start}{pad}{x}, {y} = {y},", f"{start}{pad}{y}, {x} = {x},", (f" {x}", f" {y}"))


TASK = Task(
    "var_swap",
    "x, y = y, is followed by x",
    make,
)
