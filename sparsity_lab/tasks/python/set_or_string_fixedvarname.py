"""`set_or_string` where the variable's name is always `current`."""

import random

from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.python.set_or_string import ask
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    return ask(Pen(rng), "current")


TASK = Task(
    "set_or_string_fixedvarname",
    "the variable current takes .add if it was set(), += if it was a string",
    make,
    kind="binding",
)
