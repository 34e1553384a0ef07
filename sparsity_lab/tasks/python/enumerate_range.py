"""Two loop variables go over `enumerate`, one over `range`."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    index, item = pen.names(2)
    return Pair(f"{start}{pad}for {index}, {item} in", f"{start}{pad}for {item} in", (" enumerate", " range"))


TASK = Task(
    "enumerate_range",
    "for x, y in is followed by enumerate, for x in by range",
    make,
    kind="position",
)
