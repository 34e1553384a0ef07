"""`with open(...)` goes on with `as`, an assignment does not."""

import random

from sparsity_lab.data.lexicon import INPUT_FILES, OUTPUT_FILES, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1)
    quote = pen.quote()
    file, mode = pen.pick(((pen.file(INPUT_FILES), "r"), (pen.file(OUTPUT_FILES), "w")))
    opened = f"open({quote}{file}{quote}, {quote}{mode}{quote})"
    return Pair(f"{start}{pad}with {opened}", f"{start}{pad}file = {opened}", (" as", " if"))


TASK = Task(
    "with_as",
    "open(...) is followed by as in a with statement, not in an assignment",
    make,
    caveat="the assignment goes on with a conditional expression: a newline would merge with the parenthesis",
    kind="look-up",
)
