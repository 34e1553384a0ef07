"""A swap ends in the variable that it began with."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = opening(pen, 0, 0)
    x, y = pen.fields(2)
    return Pair(f"{start}{x}, {y} = {y},", f"{start}{y}, {x} = {x},", (f" {x}", f" {y}"))


TASK = Task(
    "var_swap",
    "x, y = y, is followed by x",
    make,
    caveat="only at module level, where the first name of a line is a token of its own, without a space",
    kind="copy",
)
