"""A for loop's variable is followed by `in`, a while loop's condition by a colon."""

import random

from sparsity_lab.data.python.blocks import for_line, while_line
from sparsity_lab.data.python.lines import bind_comprehension, remark
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import short_condition
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, MODULE, context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (for_line, while_line, while_line, bind_comprehension, remark("for", "in"), remark("while"))


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, (MODULE, MODULE, FUNCTION, DEEPER), elsewhere=1.0)
    condition = short_condition(pen)
    last = condition.rpartition(" ")[2]
    item = last if pen.chance(0.5) else f"{pen.name()}, {last}"
    return Pair(f"{start}{pad}for {item}", f"{start}{pad}while {condition}", (" in", ":\n"))


TASK = Task(
    "for_while",
    "for x is followed by in, while x by :",
    make,
    kind="position",
)
