"""`with open(...)` goes on with `as`, an assignment does not."""

import random

from sparsity_lab.data.python.blocks import open_with
from sparsity_lab.data.python.lines import remark
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.strings import open_if
from sparsity_lab.data.python.values import opened
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, MODULE, context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (open_with, open_if, open_if)
REMARK = remark("with")


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, (MODULE, FUNCTION, DEEPER), (1, 1), 0.3)
    start += REMARK(pen, pad) if pen.chance(0.85) else ""
    text = opened(pen, pen.chance(0.5))
    assigned = pen.pick(("file = ", "stream = "))
    lead = pen.pick((assigned, f"{pen.function()}(", "return " if pad else assigned))
    return Pair(f"{start}{pad}with {text}", f"{start}{pad}{lead}{text}", (" as", " if"))


TASK = Task(
    "with_as",
    "open(...) is followed by as in a with statement, not in an assignment",
    make,
    caveat="the assignment goes on with a conditional expression: a newline would merge with the parenthesis",
    kind="position",
)
