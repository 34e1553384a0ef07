"""In a dict a number is a key and takes a colon, in a list an element and takes a comma."""

import random

from sparsity_lab.data.python.lexicon import DIGITS
from sparsity_lab.data.python.lines import bind_dict, bind_list
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import flat_list
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (bind_dict, bind_list)


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, lines=(2, 3))
    before = f"{start}{pad}{pen.collection()} = "
    last, first = pen.pick(DIGITS), pen.pick(DIGITS)
    entry = f"{{{first}: {pen.known()}"
    form = pen.pick((0, 1, 1, 2, 2, 3, 4))
    if form == 0:  # the innermost bracket stands in one of the other kind
        inside, outside = f"[{entry}, {last}", f"{{{first}: [{pen.pick(DIGITS)}, {last}"
    elif form == 1:
        inside, outside = f"[{{{last}", f"{{{first}: [{last}"
    elif form == 2:  # a bracket of the other kind is closed
        inside, outside = f"{{{first}: {flat_list(pen)}, {last}", f"[{entry}}}, {last}"
    elif form == 3:  # a bracket of the same kind is closed
        inside, outside = f"{{{pen.pick(DIGITS)}: {entry}}}, {last}", f"[{flat_list(pen)}, {last}"
    else:
        inside, outside = f"{entry}, {last}", f"[{first}, {last}"
    return Pair(before + inside, before + outside, (":", ","))


TASK = Task(
    "bracket_brace",
    "a number is followed by : in a dict, by , in a list",
    make,
    kind="state",
)
