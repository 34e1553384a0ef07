"""A comparison with True is a condition and takes a colon, an assignment of True does not."""

import random

from sparsity_lab.data.python.blocks import if_line, while_line
from sparsity_lab.data.python.lines import bind_flag
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (if_line, while_line, bind_flag, bind_flag)


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, (FUNCTION, DEEPER))
    name, other = pen.known(), pen.known()
    condition = pen.pick((f"if {name}", f"if {other} and {name}", f"while {name}", f"while {name}"))
    if pen.chance(0.25):
        start, condition = start + if_line(pen, pad), f"elif {name}"
    assigned = f"{name} =", f"{pen.name()} = {name} =="
    statement = pen.pick(assigned) if pen.chance(0.6) else f"return {name} =="
    return Pair(f"{start}{pad}{condition} == True", f"{start}{pad}{statement} True", (":\n", "\n"))


TASK = Task(
    "var_if",
    "if x == True is followed by :, x = True by the end of the line",
    make,
    kind="position",
)
