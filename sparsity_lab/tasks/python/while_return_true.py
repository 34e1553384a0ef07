"""`while True` takes a colon, `return True` ends the line."""

import random

from sparsity_lab.data.python.blocks import while_line
from sparsity_lab.data.python.lines import bind_flag
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, context
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, (while_line, bind_flag), (FUNCTION, DEEPER))
    return Pair(f"{start}{pad}while True", f"{start}{pad}return True", (":\n", "\n"))


TASK = Task(
    "while_return_true",
    "while True is followed by :, return True by the end of the line",
    make,
    caveat="as in the paper, the keyword directly before True decides",
    kind="position",
)
