"""Fill a set with `.add`, a string with ` +=`."""

import random

from sparsity_lab.data.python.lexicon import INDENT
from sparsity_lab.data.python.lines import plain_lines
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task


def ask(pen: Pen, variable: str) -> Pair:
    """The loop that fills `variable`; another variable is a string if it is a set, and a set if not."""
    start, pad = context(pen, (), lines=(0, 1), elsewhere=0.0)
    other = pen.accumulator()
    while other == variable:
        other = pen.accumulator()
    quote = pen.quote()
    values = "set()", quote + quote
    order = pen.chance(0.5)

    def bound(own: str, others: str) -> str:
        lines = [f"{pad}{variable} = {own}\n", f"{pad}{other} = {others}\n"]
        return "".join(lines if order else reversed(lines))

    loop = (
        f"{plain_lines(pen, pad, 0, 1)}{pad}for {pen.name()} in {pen.many()}:\n"
        f"{plain_lines(pen, pad + INDENT, 0, 1)}{pad}{INDENT}{variable}"
    )
    return Pair(f"{start}{bound(*values)}{loop}", f"{start}{bound(*reversed(values))}{loop}", (".add", " +="))


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    variable = pen.accumulator() if pen.chance(0.5) else pen.name()
    while variable == "current":
        variable = pen.accumulator()
    return ask(pen, variable)


TASK = Task(
    "set_or_string",
    "a variable that was set() takes .add, one that was a string takes +=",
    make,
    kind="binding",
)
