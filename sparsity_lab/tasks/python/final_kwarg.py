"""Once an argument has a default, so has the last one."""

import random

from sparsity_lab.data.python.definitions import keyword_call, short_function
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import parameters
from sparsity_lab.tasks.prompts import MODULE, context
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = context(pen, (keyword_call,), (MODULE,), (0, 1), elsewhere=0.0)
    for defaults in pen.pick(((True, False), (False, True), (True,), (False,))):
        start += f"\n\n{short_function(pen, defaults)}"
    if pen.chance(0.5):
        start += f"\n\n{keyword_call(pen, '')}"
    header = f"{start}\n\ndef {pen.function()}("
    *earlier, last = pen.names(pen.pick((2, 2, 3, 4)))
    with_defaults, without = parameters(pen, earlier, True), parameters(pen, earlier, False)
    return Pair(f"{header}{with_defaults}, {last}", f"{header}{without}, {last}", ("=None", "):\n"))


TASK = Task(
    "final_kwarg",
    "after arguments with defaults, the last one has a default too",
    make,
    kind="state",
)
