"""A swap ends in the variable that is missing on its right side."""

import random

from sparsity_lab.data.python.lines import swap, use
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, (swap, use))
    x, y = pen.different(list(pen.variables), 2) if len(pen.variables) > 1 else pen.names(2)
    return Pair(f"{start}{pad}{x}, {y} = {y},", f"{start}{pad}{y}, {x} = {x},", (f" {x}", f" {y}"))


TASK = Task(
    "var_swap",
    "x, y = y, is followed by x",
    make,
    caveat="the place decides: the answer is the name that stands first on the line, always equally far away",
    kind="copy",
)
