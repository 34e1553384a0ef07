"""Open a file to read or to write, as its name suggests."""

import random

from sparsity_lab.data.lexicon import EXTENSIONS, INPUT_FILES, OUTPUT_FILES, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen)
    quote, extension = pen.quote(), pen.pick(EXTENSIONS)
    before = f"{start}{pad}with open({quote}"
    after = f"{extension}{quote}, {quote}"
    return Pair(
        f"{before}{pen.pick(INPUT_FILES)}{after}", f"{before}{pen.pick(OUTPUT_FILES)}{after}", ("r", "w")
    )


TASK = Task(
    "with_open",
    "a file named for input is opened with r, one named for output with w",
    make,
    kind="look-up",
)
