"""Copy the argument that an attribute is named after."""

import random

from sparsity_lab.data.python.definitions import init
from sparsity_lab.data.python.lexicon import INDENT
from sparsity_lab.data.python.lines import set_attribute
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import MODULE, context
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, _ = context(pen, (set_attribute,), (MODULE,), elsewhere=0.0)
    if pen.chance(0.3):
        start += f"\n\nclass {pen.class_name()}:\n{init(pen, pen.fields(2))}"
    first, second, *others = pen.fields(pen.count(2, 4))
    arguments = pen.different([first, second, *others], len(others) + 2)
    header = f"{start}\n\nclass {pen.class_name()}:\n{INDENT}def __init__(self, {', '.join(arguments)}):\n"
    earlier = others[: pen.count(0, len(others))]
    header += "".join([f"{INDENT * 2}self.{field} = {field}\n" for field in earlier])
    before = f"{header}{INDENT * 2}self."
    return Pair(f"{before}{first} =", f"{before}{second} =", (f" {first}", f" {second}"))


TASK = Task(
    "class_init",
    "self.x = is followed by the argument x",
    make,
    kind="copy",
)
