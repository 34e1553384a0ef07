"""Which quote closes a string: the one that opened it."""

import random

from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.strings import bind_string, print_more, print_string
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (print_string, print_more, bind_string)


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING)
    lead = pen.pick(("", "", f"{pen.known()}, ", f"{pen.string()}, "))
    before = f"{start}{pad}print({lead}"
    words, quoted, last = pen.phrase(1, 2), pen.phrase(1, 1), pen.phrase(1, 2)
    nested = pen.chance(0.55)  # a word in the other kind of quote, closed

    def string(quote: str, other: str) -> str:
        return f"{quote}{words} {other}{quoted}{other} {last}" if nested else f"{quote}{words}"

    return Pair(before + string("'", '"'), before + string('"', "'"), ("')\n", '")\n'))


TASK = Task(
    "single_double_quote",
    "close a string with the quote that opened it",
    make,
    caveat="the answers carry the newline that follows them in nearly all of the corpus",
    kind="state",
)
