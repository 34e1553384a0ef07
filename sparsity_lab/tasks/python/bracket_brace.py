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
    start, pad = context(pen, COMPETING, lines=(1, 1))
    before = f"{start}{pad}{pen.collection()} = "
    last, first = pen.pick(DIGITS), pen.pick(DIGITS)
    form = pen.pick((0, 0, 1, 2, 3))
    if form == 0:  # the innermost bracket stands in one of the other kind
        inside, outside = f"[{{{first}: {pen.known()}, {last}", f"{{{first}: [{last}"
    elif form == 1:  # a bracket of the other kind is closed
        closed_dict, closed_list = f"{{{first}: {pen.known()}}}", flat_list(pen)
        inside, outside = f"{{{first}: {closed_list}, {last}", f"[{closed_dict}, {last}"
    elif form == 2:  # a bracket of the same kind is closed
        entry = f"{{{pen.pick(DIGITS)}: {pen.known()}}}"
        inside, outside = f"{{{first}: {entry}, {last}", f"[{flat_list(pen)}, {last}"
    else:
        inside, outside = f"{{{first}: {pen.known()}, {last}", f"[{first}, {last}"
    return Pair(before + inside, before + outside, (":", ","))


TASK = Task(
    "bracket_brace",
    "a number is followed by : in a dict, by , in a list",
    make,
    kind="state",
)
