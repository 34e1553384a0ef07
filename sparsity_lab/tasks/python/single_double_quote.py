"""Which quote closes a string: the one that opened it."""

import random

from sparsity_lab.data.lexicon import Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    words = pen.phrase(1, 3)
    return Pair(f"{start}{pad}print('{words}", f'{start}{pad}print("{words}', ("')\n", '")\n'))


TASK = Task(
    "single_double_quote",
    "close a string with the quote that opened it",
    make,
    caveat="the answers carry the newline that follows them in nearly all of the corpus",
    kind="look-up",
)
