"""A lambda's argument is followed by a colon, a function's name by a parenthesis."""

import random

from sparsity_lab.data.python.definitions import short_function
from sparsity_lab.data.python.lexicon import INDENT
from sparsity_lab.data.python.lines import key_function
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import MODULE, context
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = context(pen, (key_function,), (MODULE,), elsewhere=0.0)
    if pen.chance(0.5):
        start += f"\n\n{short_function(pen, pen.chance(0.4))}"
    pad = pen.pick(("", INDENT))
    before = f"{start}\n\n{f'class {pen.class_name()}:' + chr(10) if pad else ''}{pad}"
    first, name = pen.names(2)
    lead = pen.pick((f"{pen.function()} = lambda ", f"{pen.function()} = lambda {first}, "))
    return Pair(f"{before}{lead}{name}", f"{before}def {name}", (":", "("))


TASK = Task(
    "lambda_func",
    "lambda x is followed by :, def x by (",
    make,
    caveat="as in the paper, the keyword decides: ` lambda` or `def` on the line that asks",
    kind="position",
)
