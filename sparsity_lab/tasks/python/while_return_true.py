"""`while True` takes a colon, `return True` ends the line."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1)
    return Pair(f"{start}{pad}while True", f"{start}{pad}return True", (":\n", "\n"))


TASK = Task(
    "while_return_true",
    "while True is followed by :, return True by the end of the line",
    make,
    kind="look-up",
)
