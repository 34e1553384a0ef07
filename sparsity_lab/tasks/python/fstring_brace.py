"""An f-string has a brace after its words, a plain string has none."""

import random

from sparsity_lab.data.python.lines import call_f
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.strings import (
    bind_fstring,
    print_fstring,
    print_more,
    print_more_fstring,
    print_string,
)
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (
    *(print_fstring, print_string, print_more, print_more_fstring, print_more_fstring),
    *(bind_fstring, bind_fstring, call_f, call_f),
)


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING)
    quote, words = pen.quote(), pen.phrase(1, 3)
    lead = pen.pick(("print(", "print(", "print(", f"print({pen.known()}, ", *(f"{pen.name()} = ",) * 2))
    close = ")" * lead.startswith("print")
    before = f"{start}{pad}{lead}"
    return Pair(f"{before}f{quote}{words}", f"{before}{quote}{words}", (" {", f"{quote}{close}\n"))


TASK = Task(
    "fstring_brace",
    "words in an f-string are followed by a brace, in a plain string by the end of the string",
    make,
    kind="position",
)
