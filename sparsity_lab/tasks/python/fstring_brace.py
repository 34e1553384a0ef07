"""An f-string has a brace after its words, a plain string has none."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    quote, words = pen.quote(), pen.phrase(2, 3)
    return Pair(
        f"{start}{pad}print(f{quote}{words}", f"{start}{pad}print({quote}{words}", (" {", f"{quote})\n")
    )


TASK = Task(
    "fstring_brace",
    "words in an f-string are followed by a brace, in a plain string by the end of the string",
    make,
    kind="look-up",
)
