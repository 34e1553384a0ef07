"""Close as many brackets as are open: two or one, three or two."""

import random

from sparsity_lab.data.python.lines import bind_list
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import closed_list, open_lists
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, (bind_list,), lines=(1, 1))
    before = f"{start}{pad}{pen.collection()} = "
    depth = pen.count(1, 2)
    text, outer = open_lists(pen, depth), closed_list(pen)
    return Pair(f"{before}{text}", f"{before}[{outer}{text}", ("]" * depth + "\n", "]" * (depth + 1) + "\n"))


TASK = Task(
    "bracket_counting",
    "a list of depth d ends in d brackets: depth 1 against 2, and 2 against 3",
    make,
    caveat="the answers carry the newline that follows them in the corpus",
    kind="count",
)
