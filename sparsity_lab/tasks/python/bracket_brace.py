"""In a dict a number is a key and takes a colon, in a list an element and takes a comma."""

import random

from sparsity_lab.data.lexicon import COLLECTIONS, DIGITS, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    before = f"{start}{pad}{pen.pick(COLLECTIONS)} = "
    last, *earlier = [pen.pick(DIGITS) for _ in range(pen.count(1, 3))]
    keys = "".join([f"{key}: {pen.name()}, " for key in earlier])
    elements = "".join([f"{element}, " for element in earlier])
    return Pair(f"{before}{{{keys}{last}", f"{before}[{elements}{last}", (":", ","))


TASK = Task(
    "bracket_brace",
    "a number is followed by : in a dict, by , in a list",
    make,
    kind="look-up",
)
