"""Two loop variables go over `enumerate`, one over `range`."""

import random

from sparsity_lab.circuits.prompts import opening
from sparsity_lab.circuits.task import Pair, Task
from sparsity_lab.data.lexicon import Pen


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    index, item = pen.names(2)
    return Pair(f"{start}{pad}for {index}, {item} in", f"{start}{pad}for {item} in", (" enumerate", " range"))


TASK = Task(
    "enumerate_range",
    "for x, y in is followed by enumerate, for x in by range",
    make,
)
