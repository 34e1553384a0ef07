"""Open a file to read or to write, as its name suggests."""

import random

from sparsity_lab.data.python.blocks import open_with
from sparsity_lab.data.python.lexicon import EXTENSIONS, INPUT_FILES, OUTPUT_FILES
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.strings import bind_file
from sparsity_lab.tasks.prompts import context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (bind_file, bind_file, bind_file, open_with)


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, elsewhere=0.3)
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
