"""Two loop variables go over `enumerate`, one over `range`."""

import random

from sparsity_lab.data.python.blocks import enumerate_header, one_line, range_header
from sparsity_lab.data.python.lines import bind_list, call_any, swap
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.strings import print_more
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, MODULE, context
from sparsity_lab.tasks.task import Pair, Task

LOOPS = (one_line(enumerate_header), one_line(range_header))
LISTED = (swap, print_more, bind_list, call_any)  # a comma stands before the loop that asks, too


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, LOOPS, (MODULE, MODULE, FUNCTION, DEEPER), (0, 1))
    start += pen.pick(LOOPS)(pen, pad) + (pen.pick(LISTED)(pen, pad) if pen.chance(0.85) else "")
    index, item, other = pen.names(3)
    several = f"{index}, {item}" if pen.chance(0.5) else f"{index}, ({item}, {other})"
    before = f"{start}{pad}for "
    return Pair(f"{before}{several} in", f"{before}{index} in", (" enumerate", " range"))


TASK = Task(
    "enumerate_range",
    "for x, y in is followed by enumerate, for x in by range",
    make,
    kind="position",
)
