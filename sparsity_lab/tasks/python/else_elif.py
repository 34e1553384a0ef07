"""`elif` takes a condition and a colon, `else` of a conditional expression a value and the line's end."""

import random

from sparsity_lab.data.lexicon import INDENT, Pen, plain_lines
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1, lines=(0, 1))
    chain = f"{start}{pad}if {pen.name()}:\n{plain_lines(pen, pad + INDENT, 1, 1)}{pad}"
    target, value, condition, name = pen.names(4)
    return Pair(f"{chain}elif {name}", f"{chain}{target} = {value} if {condition} else {name}", (":\n", "\n"))


TASK = Task(
    "else_elif",
    "x after elif is followed by :, x after else by the end of the line",
    make,
    caveat="the paper's prompts end in the keywords, two tokens that leave nothing to compute; "
    "here both end in the name after the keyword, and the else is that of a conditional expression",
    kind="look-up",
)
