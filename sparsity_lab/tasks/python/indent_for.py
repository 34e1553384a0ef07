"""A loop's body is indented deeper than the line after an ordinary line."""

import random

from sparsity_lab.data.python.blocks import for_line
from sparsity_lab.data.python.lexicon import INDENT
from sparsity_lab.data.python.lines import comment_line, commented_for
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, context
from sparsity_lab.tasks.task import Pair, Task

COMPETING = (for_line, commented_for)


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(pen, COMPETING, (FUNCTION, DEEPER), (1, 1))
    start += comment_line(pen, pad)
    loop = f"for {', '.join(pen.names(pen.count(1, 2)))} in {pen.many()}:\n"
    # a word takes the last space of its indentation into its own token
    return Pair(f"{start}{pad}{loop}", f"{start}{pad}# {loop}", ((pad + INDENT)[1:], pad[1:]))


TASK = Task(
    "indent_for",
    "the line after a for header is indented deeper, the line after a comment is not",
    make,
    caveat="the ordinary line is a comment, so that it ends in the same token as the loop header; "
    "a `#` a few tokens from the end answers many prompts",
    kind="position",
)
