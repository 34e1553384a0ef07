"""`tinypython`: a seeded grammar of short Python programs that always parse.

It replaces the paper's synthetic code (Gao et al. 2025, App. A). The programs make the next token depend on
lines far above:

1. Functions and classes are defined, then called with the number and the types of arguments that they take.
2. Variables of several types are bound, rebound, and used as their type asks (`python/lines.py`).
3. Brackets nest to a depth of four; strings of both quotes stand side by side (`python/values.py`).
4. Loops, conditions and files nest; a loop fills variables of different types (`python/blocks.py`).

Every idiom of the 20 tasks occurs with both answers, at module level, in functions and in methods, and in
the company of what competes with it. Document i depends only on (seed, i), so shards can be written in
parallel and in any order.
"""

import random
from collections.abc import Iterator

from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.data.python.blocks import statements
from sparsity_lab.data.python.definitions import class_definition, function, sentence, small_functions
from sparsity_lab.data.python.lexicon import COLLECTIONS, INDENT, MODULES
from sparsity_lab.data.python.lines import bind_number, call_of, swap
from sparsity_lab.data.python.pen import Pen


def documents(seed: int, start: int, count: int) -> Iterator[str]:
    """Yield documents start, ..., start + count - 1 of the endless stream of `seed`."""
    for index in range(start, start + count):
        yield document(random.Random(derive_seed(seed, "tinypython", index)))


def document(rng: random.Random) -> str:
    """Write one Python file of about 15 to 60 lines."""
    pen = Pen(rng)
    modules = pen.different(tuple(MODULES), pen.pick((0, 0, 1, 2)))
    parts = [_head(pen, modules)]
    for _ in range(pen.count(2, 4)):
        parts.append(pen.pick(SECTIONS)(pen))
    if modules:
        parts.append("".join([call_of(pen, "", module) for module in modules]))
    if pen.chance(0.3):
        parts.append(_main(pen))
    return "\n\n".join([part for part in parts if part])


def _head(pen: Pen, modules: list[str]) -> str:
    text = f'"""{sentence(pen)}"""\n' if pen.chance(0.2) else ""
    for module in modules:
        text += f"import {module}\n"
    if pen.chance(0.15):
        text += f"from {pen.pick(COLLECTIONS)} import {pen.function()}\n"
    return text


def _module_level(pen: Pen) -> str:
    return bind_number(pen, "") + statements(pen, "", 3, 6) + (swap(pen, "") if pen.chance(0.4) else "")


def _main(pen: Pen) -> str:
    quote = pen.quote()
    return f"if __name__ == {quote}__main__{quote}:\n{statements(pen, INDENT, 1, 3)}"


SECTIONS = (
    *(_module_level,) * 4,
    *(function,) * 5,
    *(class_definition,) * 2,
    small_functions,
)
