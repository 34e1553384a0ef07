"""`tinypython`: a seeded grammar of simple, idiomatic Python that always parses.

It replaces the paper's synthetic code (Gao et al. 2025, App. A). Every idiom of the 20 tasks occurs with both
answers, at module level, in functions and in methods. Document i depends only on (seed, i), so shards can be
written in parallel and in any order.
"""

import random
from collections.abc import Iterator

from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.data.lexicon import (
    CLASSES,
    COLLECTIONS,
    COMMENTS,
    DIGITS,
    FUNCTIONS,
    INDENT,
    MODULES,
    OPERATORS,
    Pen,
    function_header,
)
from sparsity_lab.data.statements import statements, swap


def documents(seed: int, start: int, count: int) -> Iterator[str]:
    """Yield documents start, ..., start + count - 1 of the endless stream of `seed`."""
    for index in range(start, start + count):
        yield document(random.Random(derive_seed(seed, "tinypython", index)))


def document(rng: random.Random) -> str:
    """Write one Python file of about 15 to 60 lines."""
    pen = Pen(rng)
    parts = [_head(pen)]
    for _ in range(pen.count(1, 3)):
        parts.append(pen.pick(SECTIONS)(pen))
    if pen.chance(0.5):
        parts.append(_main(pen))
    return "\n\n".join([part for part in parts if part])


def _head(pen: Pen) -> str:
    text = ""
    if pen.chance(0.3):
        text += f'"""{_sentence(pen)}"""\n'
    for module in {pen.pick(MODULES): None for _ in range(pen.count(0, 2))}:
        text += f"import {module}\n"
    if pen.chance(0.2):
        text += f"from {pen.pick(COLLECTIONS)} import {pen.pick(FUNCTIONS)}\n"
    return text


def _sentence(pen: Pen) -> str:
    return f"{pen.pick(COMMENTS).capitalize()} {pen.name()}."


def _module_level(pen: Pen) -> str:
    return statements(pen, "", 3, 6) + (swap(pen, "") if pen.chance(0.6) else "")


def _function(pen: Pen) -> str:
    return function_header(pen, "") + _body(pen, INDENT)


def _function_with_defaults(pen: Pen) -> str:
    return f"def {pen.pick(FUNCTIONS)}({_defaults(pen)}):\n{_body(pen, INDENT)}"


def _defaults(pen: Pen) -> str:
    """Write arguments that all have the default None, and enter their scope."""
    arguments = pen.new_names(pen.count(1, 4))
    pen.enter(arguments)
    return ", ".join([f"{name}=None" for name in arguments])


def _small_functions(pen: Pen) -> str:
    """Write two or three functions named by a noun, without arguments."""
    texts = []
    for name in pen.new_names(pen.count(2, 3)):
        value = pen.pick((pen.pick(DIGITS), pen.name(), pen.string(), "True", f"{pen.name()} + {pen.name()}"))
        texts.append(f"def {name}():\n{INDENT}return {value}\n")
    return "\n\n".join(texts)


def _body(pen: Pen, pad: str) -> str:
    text = f'{pad}"""{_sentence(pen)}"""\n' if pen.chance(0.15) else ""
    return text + statements(pen, pad, 2, 5) + _return(pen, pad)


def _return(pen: Pen, pad: str) -> str:
    kind = pen.count(0, 5)
    if kind == 0:
        return ""
    if kind == 1:
        return f"{pad}return {pen.pick(('True', 'False'))}\n"
    if kind == 2:
        otherwise = pen.pick(("False", pen.name()))
        return f"{pad}if {pen.name()}:\n{pad}{INDENT}return True\n{pad}return {otherwise}\n"
    if kind == 3:
        value, condition, other = pen.names(3)
        return f"{pad}return {value} if {condition} else {other}\n"
    if kind == 4:
        return f"{pad}return {pen.name()}\n"
    return f"{pad}return {pen.name()} {pen.pick(OPERATORS)} {pen.name()}\n"


def _class(pen: Pen) -> str:
    """Write a class whose `__init__` copies its arguments in any order and whose methods use them."""
    fields = pen.fields(pen.pick((1, 2, 2, 3, 3)))
    text = f"class {pen.pick(CLASSES)}:\n"
    if pen.chance(0.15):
        text += f'{INDENT}"""{_sentence(pen)}"""\n\n'
    pen.enter(fields)
    text += f"{INDENT}def __init__(self, {', '.join(fields)}):\n"
    start = pen.count(0, len(fields) - 1)
    order = fields[start:] + fields[:start]
    if pen.chance(0.5):
        order.reverse()
    for field in order:
        text += f"{INDENT * 2}self.{field} = {field}\n"
    for _ in range(pen.count(0, 2)):
        text += "\n" + pen.pick((_getter, _setter, _method))(pen, pen.pick(fields))
    return text


def _getter(pen: Pen, field: str) -> str:
    return f"{INDENT}def {pen.name()}(self):\n{INDENT * 2}return self.{field}\n"


def _setter(pen: Pen, field: str) -> str:
    return f"{INDENT}def {pen.pick(FUNCTIONS)}(self, {field}):\n{INDENT * 2}self.{field} = {field}\n"


def _method(pen: Pen, field: str) -> str:
    header = function_header(pen, INDENT, "self")
    if pen.chance(0.3):
        header = f"{INDENT}def {pen.pick(FUNCTIONS)}(self, {_defaults(pen)}):\n"
    return header + statements(pen, INDENT * 2, 1, 3) + f"{INDENT * 2}return self.{field}\n"


def _main(pen: Pen) -> str:
    quote = pen.quote()
    return f"if __name__ == {quote}__main__{quote}:\n{statements(pen, INDENT, 1, 4)}"


SECTIONS = (
    *(_module_level, _module_level, _module_level, _function, _function, _function, _function),
    *(_function_with_defaults, _function_with_defaults, _small_functions, _class, _class, _class, _class),
)
