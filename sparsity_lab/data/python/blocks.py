"""Compound statements of `tinypython`: loops, conditions, `with`, `try`, in each other to a depth of three.

A loop that fills variables is the text's main case of binding: two variables of different types are made,
in any order, and each is filled as its own type asks.
"""

from sparsity_lab.data.python.lexicon import DIGITS, INDENT
from sparsity_lab.data.python.lines import LINES, comment_line, plain, plain_lines
from sparsity_lab.data.python.pen import Kind, Pen, Statement
from sparsity_lab.data.python.strings import print_string
from sparsity_lab.data.python.values import condition, opened, value

DEEPEST = 12
"""Indentation at which statements stop opening further blocks."""
FILLED: tuple[Kind, ...] = ("set", "set", "set", "string", "string", "string", "list", "number")


def open_with(pen: Pen, pad: str) -> str:
    reads = pen.chance(0.5)
    handle = pen.pick(("file", "file", "stream"))
    call = opened(pen, reads)
    if reads:
        body = f"{pen.bind(pen.new('string'), 'string')} = {handle}.read()"
    else:
        body = f"{handle}.write({value(pen, 'string')})"
    more = plain_lines(pen, pad + INDENT, 0, 1)
    return f"{pad}with {call} as {handle}:\n{pad}{INDENT}{body}\n{more}"


def each_header(pen: Pen, pad: str) -> str:
    """Loop over a list, or over the entries of a dict."""
    if pen.chance(0.2) and (entries := pen.bound("dict")):
        key, item = pen.names(2)
        pen.bind(key, "string")
        return f"{pad}for {key}, {pen.bind(item, 'number')} in {entries}.items():\n"
    many = pen.many()
    return f"{pad}for {pen.bind(pen.name(), 'number')} in {many}:\n"


def range_header(pen: Pen, pad: str) -> str:
    limit = pen.pick((pen.number(), pen.pick(DIGITS), f"len({pen.many()})"))
    return f"{pad}for {pen.bind(pen.name(), 'number')} in range({limit}):\n"


def enumerate_header(pen: Pen, pad: str) -> str:
    """Loop over numbered items, some of which are pairs."""
    many = pen.many()
    index, item, other = pen.names(3)
    pen.bind(index, "number")
    item = pen.bind(item, "number")
    item = f"({item}, {pen.bind(other, 'number')})" if pen.chance(0.45) else item
    return f"{pad}for {index}, {item} in enumerate({many}):\n"


def while_header(pen: Pen, pad: str) -> str:
    return f"{pad}while {condition(pen, member=False)}:\n"


def if_header(pen: Pen, pad: str) -> str:
    return f"{pad}if {condition(pen)}:\n"


def for_header(pen: Pen, pad: str) -> str:
    return pen.pick((each_header, each_header, range_header, enumerate_header))(pen, pad)


def nesting(header: Statement) -> Statement:
    """A compound statement of this header, with a body of statements that may nest."""
    return lambda pen, pad: header(pen, pad) + block(pen, pad + INDENT)


def one_line(header: Statement) -> Statement:
    """A compound statement of this header, with one plain statement as its body."""
    return lambda pen, pad: header(pen, pad) + plain(pen, pad + INDENT)


def while_true(pen: Pen, pad: str) -> str:
    inner = pad + INDENT
    text = f"{pad}while True:\n{plain_lines(pen, inner, 1, 2)}"
    return f"{text}{inner}if {condition(pen)}:\n{inner}{INDENT}break\n"


def if_elif(pen: Pen, pad: str) -> str:
    """Write `if` and `elif`, each with one plain statement."""
    inner = pad + INDENT
    text = if_header(pen, pad) + plain(pen, inner)
    return f"{text}{pad}elif {condition(pen)}:\n{plain(pen, inner)}"


def if_condition(pen: Pen, pad: str) -> str:
    """Write `if`, often followed by `elif` and `else`."""
    inner = pad + INDENT
    text = if_header(pen, pad) + block(pen, inner)
    if pen.chance(0.5):
        text += f"{pad}elif {condition(pen)}:\n{plain(pen, inner)}"
    if pen.chance(0.4):
        text += f"{pad}else:\n{plain(pen, inner)}"
    return text


def try_except(pen: Pen, pad: str) -> str:
    inner = pad + INDENT
    error = pen.pick(("ValueError", "KeyError", "OSError"))
    body = plain(pen, inner)
    return f"{pad}try:\n{body}{pad}except {error}:\n{pen.pick((print_string, plain))(pen, inner)}"


def empty(pen: Pen, kind: Kind) -> str:
    """Write the empty value of a type that a loop fills."""
    quote = pen.quote()
    return {"set": "set()", "string": quote + quote, "list": "[]", "number": "0"}[kind]


def filled(pen: Pen, name: str, kind: Kind, item: str) -> str:
    """Write what puts `item` into the variable."""
    if kind == "set":
        return f"{name}.add({item})"
    if kind == "list":
        return f"{name}.append({item})"
    if kind == "number":
        return f"{name} += {pen.pick((item, pen.pick(DIGITS)))}"
    return f"{name} += {pen.pick((item, pen.string(), pen.string()))}"


def accumulate(pen: Pen, pad: str) -> str:
    """Write a loop that fills one to three variables of different types, made in any order."""
    inner = pad + INDENT
    kinds: list[Kind] = []
    wanted = pen.pick((1, 2, 2, 2, 3))
    while len(kinds) < wanted:
        kind = pen.pick(FILLED)
        if kind not in kinds:
            kinds.append(kind)
    names: list[str] = []
    while len(names) < wanted:
        name = pen.accumulator() if pen.chance(0.7) else pen.name()
        if name not in names:
            names.append(name)
    text = "".join([f"{pad}{name} = {empty(pen, kind)}\n" for name, kind in zip(names, kinds, strict=True)])
    text += plain_lines(pen, pad, 0, 1)
    item, many = pen.name(), pen.many()
    pen.bind(item, "number")
    for name, kind in zip(names, kinds, strict=True):
        pen.bind(name, kind)
    text += f"{pad}for {item} in {many}:\n{plain_lines(pen, inner, 0, 1)}"
    order = list(zip(names, kinds, strict=True))
    if pen.chance(0.5):
        order.reverse()
    return text + "".join([f"{inner}{filled(pen, name, kind, item)}\n" for name, kind in order])


for_line, while_line, if_line = one_line(for_header), one_line(while_header), one_line(if_header)
BLOCKS: tuple[Statement, ...] = (
    *(open_with, open_with, try_except, while_true),
    *(nesting(each_header),) * 2,
    *(nesting(range_header),) * 2,
    *(nesting(enumerate_header),) * 2,
    *(nesting(while_header),) * 3,
    *(if_condition,) * 4,
    *(accumulate,) * 5,
)


def block(pen: Pen, pad: str) -> str:
    """Write the body of a loop or condition, mostly one line."""
    return statements(pen, pad, 1, 2, 0.15)


def statements(pen: Pen, pad: str, low: int, high: int, nested: float = 0.35) -> str:
    """Write low to high statements; each is a block with probability `nested`."""
    if len(pad) >= DEEPEST:
        nested = 0.0
    texts = []
    for _ in range(pen.count(low, high)):
        if pen.chance(nested):
            texts.append(comment_line(pen, pad) if pen.chance(0.2) else "")
            texts.append(pen.pick(BLOCKS)(pen, pad))
        else:
            texts.append(pen.pick(LINES)(pen, pad))
    return "".join(texts)
