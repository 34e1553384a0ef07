"""Fill a set with `.add`, a string with ` +=`."""

import random

from sparsity_lab.data.lexicon import ACCUMULATORS, COLLECTIONS, INDENT, Pen, plain_lines
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def ask(pen: Pen, variable: str) -> Pair:
    """The loop that fills `variable`."""
    start, pad = opening(pen, lines=(0, 2))
    quote = pen.quote()
    loop = (
        f"\n{plain_lines(pen, pad, 0, 1)}{pad}for {pen.name()} in {pen.pick(COLLECTIONS)}:\n"
        f"{plain_lines(pen, pad + INDENT, 0, 1)}{pad}{INDENT}{variable}"
    )
    before = f"{start}{pad}{variable} = "
    return Pair(f"{before}set(){loop}", f"{before}{quote}{quote}{loop}", (".add", " +="))


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    return ask(pen, pen.pick(ACCUMULATORS))


TASK = Task(
    "set_or_string",
    "a variable that was set() takes .add, one that was a string takes +=",
    make,
    kind="look-up",
)
