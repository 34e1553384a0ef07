"""The idioms of `tinypython`. Each function writes one kind of statement as whole indented lines.

The features that decide a task are deterministic. A set takes `.add`, a string ` +=`. An f-string ends in a
brace, a plain string has none. A number in a dict is a key and takes `:`; in a list it never does. Files
named for output are opened with 'w'. The best prediction is therefore sharp, and the entropy lies in the
words.
"""

from sparsity_lab.data.lexicon import (
    ACCUMULATORS,
    COLLECTIONS,
    DIGITS,
    FIELDS,
    INDENT,
    INPUT_FILES,
    OPERATORS,
    OUTPUT_FILES,
    Pen,
    Statement,
    plain,
    plain_lines,
)

DEEPEST = 12
"""Indentation at which statements stop opening further blocks."""


def print_string(pen: Pen, pad: str) -> str:
    quote = pen.quote()
    return f"{pad}print({quote}{pen.phrase(1, 3)}{quote})\n"


def print_fstring(pen: Pen, pad: str) -> str:
    quote = pen.quote()
    return f"{pad}print(f{quote}{pen.phrase(1, 3)} {{{pen.name()}}}{quote})\n"


def print_names(pen: Pen, pad: str) -> str:
    return f"{pad}print({', '.join(pen.names(pen.count(1, 3)))})\n"


def assign_string(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.name()} = {pen.string()}\n"


def assign_fstring(pen: Pen, pad: str) -> str:
    quote = pen.quote()
    return f"{pad}{pen.name()} = f{quote}{pen.phrase(1, 3)} {{{pen.name()}}}{quote}\n"


def assign_flag(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.name()} = {pen.pick(('True', 'True', 'False', 'None'))}\n"


def assign_ternary(pen: Pen, pad: str) -> str:
    value, condition, other = pen.names(3)
    return f"{pad}{pen.name()} = {value} if {condition} else {other}\n"


def swap(pen: Pen, pad: str) -> str:
    first, second = pen.fields(2)
    return f"{pad}{first}, {second} = {second}, {first}\n"


def set_attribute(pen: Pen, pad: str) -> str:
    name = pen.pick(FIELDS)
    return f"{pad}{pen.name()}.{name} = {name}\n"


def flat_list(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.pick(COLLECTIONS)} = {_numbers(pen)}\n"


def nested_list(pen: Pen, pad: str) -> str:
    rows = ", ".join([_numbers(pen) for _ in range(pen.pick((1, 1, 2, 2, 3)))])
    return f"{pad}{pen.pick(COLLECTIONS)} = [{rows}]\n"


def _numbers(pen: Pen) -> str:
    return f"[{', '.join([pen.pick(DIGITS) for _ in range(pen.count(1, 4))])}]"


def list_of_strings(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.pick(COLLECTIONS)} = [{', '.join([pen.string() for _ in range(pen.count(1, 3))])}]\n"


def dict_by_number(pen: Pen, pad: str) -> str:
    entries = ", ".join([f"{pen.pick(DIGITS)}: {pen.name()}" for _ in range(pen.count(1, 4))])
    return f"{pad}{pen.pick(COLLECTIONS)} = {{{entries}}}\n"


def dict_by_string(pen: Pen, pad: str) -> str:
    entries = ", ".join([f"{pen.string()}: {pen.name()}" for _ in range(pen.count(1, 3))])
    return f"{pad}{pen.pick(COLLECTIONS)} = {{{entries}}}\n"


def comprehension(pen: Pen, pad: str) -> str:
    opened, closed = pen.pick((("[", "]"), ("{", "}"), ("[", "]")))
    item = pen.name()
    value = pen.pick((f"{item} {pen.pick(OPERATORS)} {pen.pick(DIGITS)}", f"{item}.{pen.pick(FIELDS)}"))
    collection = pen.pick(COLLECTIONS)
    return f"{pad}{pen.pick(COLLECTIONS)} = {opened}{value} for {item} in {collection}{closed}\n"


def key_function(pen: Pen, pad: str) -> str:
    item = pen.name()
    return f"{pad}{pen.name()} = lambda {item}: {item} {pen.pick(OPERATORS)} {pen.pick(DIGITS)}\n"


def open_call(pen: Pen, reads: bool) -> str:
    """Write `open('input.txt', 'r')`, or an output file with 'w'."""
    quote, file, mode = pen.quote(), pen.file(INPUT_FILES if reads else OUTPUT_FILES), "r" if reads else "w"
    return f"open({quote}{file}{quote}, {quote}{mode}{quote})"


def open_with(pen: Pen, pad: str) -> str:
    reads = pen.chance(0.5)
    handle = pen.pick(("file", "file", "stream"))
    name = pen.name()
    body = f"{name} = {handle}.read()" if reads else f"{handle}.write({name})"
    return f"{pad}with {open_call(pen, reads)} as {handle}:\n{pad}{INDENT}{body}\n"


def open_if(pen: Pen, pad: str) -> str:
    opened = open_call(pen, pen.chance(0.5))
    return f"{pad}{pen.pick(('file', 'file', 'stream'))} = {opened} if {pen.name()} else None\n"


def commented_for(pen: Pen, pad: str) -> str:
    return f"{pad}# for {pen.name()} in {pen.pick(COLLECTIONS)}:\n{plain(pen, pad)}"


def for_each(pen: Pen, pad: str) -> str:
    return f"{pad}for {pen.name()} in {pen.pick(COLLECTIONS)}:\n{block(pen, pad + INDENT)}"


def for_range(pen: Pen, pad: str) -> str:
    limit = pen.pick((pen.name(), pen.pick(DIGITS)))
    return f"{pad}for {pen.name()} in range({limit}):\n{block(pen, pad + INDENT)}"


def for_enumerate(pen: Pen, pad: str) -> str:
    index, item = pen.names(2)
    return f"{pad}for {index}, {item} in enumerate({pen.pick(COLLECTIONS)}):\n{block(pen, pad + INDENT)}"


def while_name(pen: Pen, pad: str) -> str:
    return f"{pad}while {pen.name()}:\n{block(pen, pad + INDENT)}"


def while_true(pen: Pen, pad: str) -> str:
    inner = pad + INDENT
    return f"{pad}while True:\n{plain_lines(pen, inner, 1, 2)}{inner}if {pen.name()}:\n{inner}{INDENT}break\n"


def if_name(pen: Pen, pad: str) -> str:
    """Write `if name:`, often followed by `elif` and `else`."""
    inner = pad + INDENT
    text = f"{pad}if {pen.name()}:\n{block(pen, inner)}"
    if pen.chance(0.5):
        text += f"{pad}elif {pen.name()}:\n{plain(pen, inner)}"
    if pen.chance(0.4):
        text += f"{pad}else:\n{plain(pen, inner)}"
    return text


def if_equals(pen: Pen, pad: str) -> str:
    value = pen.pick(("True", "True", "False", "None", pen.pick(DIGITS), pen.name(), pen.string()))
    return f"{pad}if {pen.name()} == {value}:\n{block(pen, pad + INDENT)}"


def try_except(pen: Pen, pad: str) -> str:
    inner = pad + INDENT
    error = pen.pick(("ValueError", "KeyError", "OSError"))
    return (
        f"{pad}try:\n{plain(pen, inner)}{pad}except {error}:\n{pen.pick((print_string, plain))(pen, inner)}"
    )


def accumulate(pen: Pen, pad: str) -> str:
    """Write a loop that fills a set, a string, a list or a count."""
    inner = pad + INDENT
    kind = pen.pick(("set", "set", "string", "string", "list", "count"))
    result, item, collection = pen.pick(ACCUMULATORS), pen.name(), pen.pick(COLLECTIONS)
    quote = pen.quote()
    start, step = {
        "set": ("set()", f".add({item})"),
        "string": (quote + quote, pen.pick((f" += {item}", f" += {pen.string()}"))),
        "list": ("[]", f".append({item})"),
        "count": ("0", f" += {pen.pick(DIGITS)}"),
    }[kind]
    return (
        f"{pad}{result} = {start}\n{plain_lines(pen, pad, 0, 1)}{pad}for {item} in {collection}:\n"
        f"{plain_lines(pen, inner, 0, 1)}{inner}{result}{step}\n"
    )


LINES: tuple[Statement, ...] = (
    *(plain,) * 4,
    *(print_string, print_string, print_fstring, print_fstring, print_names),
    *(assign_string, assign_fstring, assign_flag, assign_flag, assign_ternary, assign_ternary),
    *(swap,) * 5,
    *(set_attribute,) * 5,
    *(flat_list, nested_list, list_of_strings, dict_by_number, dict_by_number, dict_by_string),
    *(comprehension, key_function, key_function, open_if, commented_for, commented_for, commented_for),
)
BLOCKS: tuple[Statement, ...] = (
    *(open_with, open_with, open_with, for_each, for_each, for_range, for_range, for_range),
    *(for_enumerate, for_enumerate, for_enumerate),
    *(
        while_name,
        while_name,
        while_name,
        while_true,
        while_true,
        if_name,
        if_name,
        if_name,
        if_equals,
        if_equals,
    ),
    *(try_except, accumulate, accumulate, accumulate, accumulate),
)


def block(pen: Pen, pad: str) -> str:
    """Write the body of a loop or condition, mostly one line."""
    return statements(pen, pad, 1, 2, 0.1)


def statements(pen: Pen, pad: str, low: int, high: int, nested: float = 0.4) -> str:
    """Write low to high statements; each is a block with probability `nested`."""
    if len(pad) >= DEEPEST:
        nested = 0.0
    texts = [pen.pick(BLOCKS if pen.chance(nested) else LINES)(pen, pad) for _ in range(pen.count(low, high))]
    return "".join(texts)
