"""Two tasks about generated programs that a very small model learns in 200,000 tokens.

The word before a name, `for` or `def`, decides what follows the name. The names are tokens of a vocabulary
of 600.
"""

import random

from sparsity_lab.tasks.task import Pair, Task

NAMES = ("node", "name", "text", "value", "child", "point", "state", "reader", "number", "label")


def task(name: str, lines: int) -> Task:
    """Make pairs that ask which of the two words stands before the last name, below `lines` other lines."""

    def pair(rng: random.Random) -> Pair:
        above = "".join([f"{rng.choice(NAMES)} = {rng.randrange(10)}\n" for _ in range(lines)])
        last = rng.choice(NAMES)
        return Pair(f"{above}for {last}", f"{above}def {last}", (" in", "("))

    return Task(name, "`for` or `def` before a name", pair, kind="look-up")


TASKS = [task("one_line", 1), task("two_lines", 2)]
