"""`set_or_string` where the variable's name is always `current`."""

import random

from sparsity_lab.circuits.task import Pair, Task
from sparsity_lab.circuits.tasks.set_or_string import ask
from sparsity_lab.data.lexicon import Pen


def make(rng: random.Random) -> Pair:
    return ask(Pen(rng), "current")


TASK = Task(
    "set_or_string_fixedvarname",
    "the variable current takes .add if it was set(), += if it was a string",
    make,
)
