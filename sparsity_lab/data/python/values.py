"""Expressions of `tinypython`, by type: literals, variables in scope, calls, conditions, brackets."""

from sparsity_lab.data.python.lexicon import DIGITS, INPUT_FILES, OPERATORS, OUTPUT_FILES
from sparsity_lab.data.python.pen import Class, Function, Kind, Pen

DEFAULTS = (*("None",) * 4, *("True",) * 2, *("False",) * 2, *DIGITS[:4])


def value(pen: Pen, kind: Kind) -> str:
    """Write a value of this type: mostly a variable in scope, else a literal."""
    if pen.chance(0.65) and (name := pen.bound(kind)):
        return name
    return literal(pen, kind)


def literal(pen: Pen, kind: Kind) -> str:
    """Write a literal of this type."""
    if kind == "number":
        return pen.pick(DIGITS)
    if kind == "string":
        return pen.string()
    if kind == "list":
        return flat_list(pen)
    if kind == "dict":
        return numbered_dict(pen) if pen.chance(0.6) else f"{{{entry_of_strings(pen)}}}"
    if kind == "set":
        return "set()"
    if kind == "flag":
        return pen.pick(("True", "True", "False"))
    return "None"


def expression(pen: Pen, kind: Kind) -> str:
    """Write a literal or something computed, of this type."""
    if pen.chance(0.5):
        return literal(pen, kind)
    if kind == "number":
        if pen.chance(0.25) and (many := pen.bound("list", "dict", "set", "string")):
            return f"len({many})"
        return f"{value(pen, kind)} {pen.pick(OPERATORS)} {value(pen, kind)}"
    if kind == "string":
        return fstring(pen) if pen.chance(0.5) else f"str({pen.known()})"
    if kind == "list":
        return pen.pick(LISTS)(pen)
    if kind == "dict":
        return numbered_dict(pen)
    if kind == "flag":
        return comparison(pen)
    return literal(pen, kind)


def numbers(pen: Pen, low: int = 1, high: int = 3) -> str:
    return ", ".join([pen.pick(DIGITS) for _ in range(pen.count(low, high))])


def flat_list(pen: Pen) -> str:
    return f"[{numbers(pen)}]"


def list_of_strings(pen: Pen) -> str:
    return f"[{', '.join([pen.string() for _ in range(pen.count(1, 3))])}]"


def list_of_names(pen: Pen) -> str:
    return f"[{', '.join([pen.known() for _ in range(pen.count(2, 4))])}]"


def closed_list(pen: Pen) -> str:
    """Write a closed list and a comma, or mostly nothing: it competes with the brackets that are open."""
    form = pen.count(0, 9)
    if form < 6:
        return ""
    return f"[{flat_list(pen)}], " if form == 9 else f"{flat_list(pen)}, "


def nested_list(pen: Pen) -> str:
    """Write lists in each other to a depth of 1 to 4; they close together, after the innermost's numbers."""
    depth = pen.pick((1, 1, 2, 2, 2, 3, 3, 4))
    return open_lists(pen, depth) + "]" * depth


def open_lists(pen: Pen, depth: int) -> str:
    """Write so many lists in each other, up to the last number of the innermost one."""
    return "".join([f"[{closed_list(pen)}" for _ in range(depth)]) + numbers(pen)


def entry(pen: Pen) -> str:
    """Write `3: size`, or a list or dict as the value."""
    if pen.chance(0.6):
        return f"{pen.pick(DIGITS)}: {pen.known()}"
    inner = flat_list(pen) if pen.chance(0.6) else f"{{{pen.pick(DIGITS)}: {pen.known()}}}"
    return f"{pen.pick(DIGITS)}: {inner}"


def numbered_dict(pen: Pen) -> str:
    return f"{{{', '.join([entry(pen) for _ in range(pen.count(1, 3))])}}}"


def entry_of_strings(pen: Pen) -> str:
    return ", ".join([f"{pen.string()}: {value(pen, 'number')}" for _ in range(pen.count(1, 2))])


def list_of_dicts(pen: Pen) -> str:
    """Write a list of a dict, and mostly of numbers after it."""
    inside = ", ".join([entry(pen) for _ in range(pen.count(1, 2))])
    return f"[{{{inside}}}{', ' + numbers(pen, 1, 2) if pen.chance(0.7) else ''}]"


def comprehension(pen: Pen) -> str:
    item, many = pen.name(), pen.many()
    computed = pen.pick((f"{item} {pen.pick(OPERATORS)} {pen.pick(DIGITS)}", item, f"str({item})"))
    return f"[{computed} for {item} in {many}]"


LISTS = (nested_list, nested_list, nested_list, list_of_strings, list_of_names, list_of_dicts, comprehension)


def fstring(pen: Pen) -> str:
    quote = pen.quote()
    return f"f{quote}{pen.phrase(1, 3)} {{{pen.known()}}}{quote}"


def comparison(pen: Pen) -> str:
    """Write a comparison of a variable in scope by its type."""
    name = pen.known()
    kind = pen.variables.get(name, "number")
    if kind == "number":
        other = pen.number() if pen.chance(0.5) else pen.pick(DIGITS)
        return f"{name} {pen.pick(('==', '==', '>', '<'))} {other}"
    if kind == "string":
        return f"{name} == {pen.string()}"
    if kind == "flag":
        return f"{name} == {pen.pick(('True', 'True', 'False'))}"
    if kind in ("list", "set", "dict"):
        return f"{value(pen, 'number')} in {name}"
    return f"{name} is None"


def condition(pen: Pen, member: bool = True) -> str:
    """Write a condition: a name, a comparison, or two of them; without `member` it holds no `in`."""
    form = pen.count(0, 9)
    if form < 3:
        return pen.known()
    if form < 4:
        return f"not {pen.known()}{pen.pick(('', f' == {pen.known()}'))}"
    if form < 5:
        return f"{pen.known()} == True"
    if form < 6:
        end = pen.pick(("", "", " == True", f" == {pen.known()}"))
        return f"{pen.known()} {pen.pick(('and', 'or'))} {pen.known()}{end}"
    if form < 7:
        return f"{pen.known()} == {pen.known()}"
    if form < 8:
        end = "" if pen.chance(0.5) else f" and {pen.known()} == {pen.known()}"
        return f"{pen.number()} > {pen.number()}{end}"
    text = comparison(pen)
    return text if member or " in " not in text else f"{pen.known()} and {pen.known()} == True"


def ternary(pen: Pen) -> str:
    return f"{pen.known()} if {short_condition(pen)} else {alternative(pen)}"


def alternative(pen: Pen) -> str:
    """Write the value after `else`, which ends in a name."""
    form = pen.count(0, 5)
    if form < 3:
        return pen.known()
    if form < 4:
        return f"not {pen.known()}"
    return f"{pen.known()} {pen.pick(OPERATORS) if form < 5 else 'and'} {pen.known()}"


def short_condition(pen: Pen) -> str:
    """Write a condition that ends in a name."""
    form = pen.count(0, 4)
    if form < 2:
        return pen.known()
    if form < 3:
        return f"not {pen.known()}"
    if form < 4:
        return f"{pen.number()} > {pen.number()}"
    return f"{pen.known()} and {pen.known()}"


def call(pen: Pen, function: Function) -> str:
    """Write a call with the arguments that the function takes, by keyword where it has defaults."""
    if not function.defaults:
        arguments = [value(pen, kind) for _, kind in function.parameters]
    else:
        arguments = [f"{name}={value(pen, kind)}" for name, kind in function.parameters if pen.chance(0.7)]
    return f"{function.name}({', '.join(arguments)})"


def instance(pen: Pen, of: Class) -> str:
    return f"{of.name}({', '.join([value(pen, kind) for _, kind in of.fields])})"


def default(pen: Pen) -> str:
    return pen.pick(DEFAULTS)


def parameters(pen: Pen, names: list[str], defaults: bool) -> str:
    """Write parameters, of which either all or none have defaults."""
    return ", ".join([f"{name}={default(pen)}" for name in names] if defaults else names)


def mode_and_file(pen: Pen, reads: bool) -> str:
    """Write `'input.txt', 'r'`, or an output file with 'w'."""
    quote, file, mode = pen.quote(), pen.file(INPUT_FILES if reads else OUTPUT_FILES), "r" if reads else "w"
    return f"{quote}{file}{quote}, {quote}{mode}{quote}"


def opened(pen: Pen, reads: bool) -> str:
    """Write a call of `open` with a file's name, or with a variable."""
    if pen.chance(0.6):
        return f"open({mode_and_file(pen, reads)})"
    name = pen.bound("string") or pen.name()
    quote = pen.quote()
    mode = f"{quote}{'r' if reads else 'w'}{quote}"
    return pen.pick((f"open({name})" if reads else f"open({name}, {mode})", f"open({name}, {mode})"))
