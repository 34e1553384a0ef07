"""Copy the argument that an attribute is named after."""

import random

from sparsity_lab.data.lexicon import CLASSES, INDENT, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = opening(pen, 0, 0, lines=(0, 2))
    fields = pen.fields(pen.count(2, 3))
    header = f"{start}\n\nclass {pen.pick(CLASSES)}:\n{INDENT}def __init__(self, {', '.join(fields)}):\n"
    first, second = fields[:2] if pen.chance(0.5) else fields[1::-1]
    before = f"{header}{INDENT * 2}self."
    return Pair(f"{before}{first} =", f"{before}{second} =", (f" {first}", f" {second}"))


TASK = Task(
    "class_init",
    "self.x = is followed by the argument x",
    make,
    kind="copy",
)
