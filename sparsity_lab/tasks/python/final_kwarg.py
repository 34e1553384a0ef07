"""Once an argument has a default, so has the last one."""

import random

from sparsity_lab.data.lexicon import FUNCTIONS, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = opening(pen, 0, 0)
    header = f"{start}\n\ndef {pen.pick(FUNCTIONS)}("
    *earlier, last = pen.new_names(pen.count(2, 4))
    positive = "".join([f"{name}=None, " for name in earlier])
    negative = "".join([f"{name}, " for name in earlier])
    return Pair(f"{header}{positive}{last}", f"{header}{negative}{last}", ("=None", "):\n"))


TASK = Task(
    "final_kwarg",
    "after arguments with defaults, the last one has a default too",
    make,
    kind="look-up",
)
