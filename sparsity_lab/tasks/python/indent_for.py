"""A loop's body is indented deeper than the line after an ordinary line."""

import random

from sparsity_lab.data.lexicon import COLLECTIONS, INDENT, Pen
from sparsity_lab.tasks.prompts import opening
from sparsity_lab.tasks.task import Pair, Task


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = opening(pen, 1)
    loop = f"for {pen.name()} in {pen.pick(COLLECTIONS)}:\n"
    # a word takes the last space of its indentation into its own token
    return Pair(f"{start}{pad}{loop}", f"{start}{pad}# {loop}", ((pad + INDENT)[1:], pad[1:]))


TASK = Task(
    "indent_for",
    "the line after a for header is indented deeper, the line after a comment is not",
    make,
    caveat="the ordinary line is a comment, so that it ends in the same token as the loop header",
    kind="position",
)
