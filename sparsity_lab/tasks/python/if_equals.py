"""A condition compares, a statement assigns."""

import random

from sparsity_lab.data.python.blocks import if_line
from sparsity_lab.data.python.lines import bind_alternative, print_ternary, remark
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import DEEPER, DEEPEST, FUNCTION, context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (if_line, bind_alternative, print_ternary, remark("if"), remark("if"))


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, (FUNCTION, DEEPER, DEEPEST))
    name = pen.known()
    lead = pen.pick(("", f"{pen.known()} and ", "not "))
    return Pair(f"{start}{pad}if {lead}{name}", f"{start}{pad}{name}", (" ==", " ="))


TASK = Task(
    "if_equals",
    "if x is followed by ==, a statement's x by =",
    make,
    kind="position",
)
