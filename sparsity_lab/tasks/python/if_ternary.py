"""A condition is followed by a colon in a statement, by `else` in a conditional expression."""

import random

from sparsity_lab.data.python.blocks import if_line
from sparsity_lab.data.python.lines import bind_alternative, bind_ternary, print_ternary, remark
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import short_condition
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (if_line, if_line, bind_ternary, bind_alternative, print_ternary, remark("if"))


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, (FUNCTION, DEEPER))
    value, condition = pen.known(), short_condition(pen)
    lead = pen.pick(
        (f"{pen.name()} {pen.pick(('=', '+='))} {value}", f"return {value}", f"{pen.function()}({value}")
    )
    return Pair(f"{start}{pad}if {condition}", f"{start}{pad}{lead} if {condition}", (":\n", " else"))


TASK = Task(
    "if_ternary",
    "if x is followed by : in a statement, by else in a conditional expression",
    make,
    kind="position",
)
