"""Functions and classes of `tinypython`, and the calls that use them as they were defined."""

from sparsity_lab.data.python.blocks import statements
from sparsity_lab.data.python.lexicon import COMMENTS, DETERMINERS, INDENT, OPERATORS
from sparsity_lab.data.python.lines import make_instance, use_instance
from sparsity_lab.data.python.pen import Class, Function, Kind, Pen
from sparsity_lab.data.python.values import (
    call,
    condition,
    default,
    opened,
    parameters,
    short_condition,
    ternary,
    value,
)

PARAMETERS: tuple[Kind, ...] = ("number", "number", "string", "list", "flag")


def sentence(pen: Pen) -> str:
    return f"{pen.pick(COMMENTS).capitalize()} {pen.pick(DETERMINERS)} {pen.known()}."


def new_parameters(pen: Pen, low: int, high: int) -> list[tuple[str, Kind]]:
    """Draw distinct parameters with their types; a list is mostly named by a plural."""
    found: dict[str, Kind] = {}
    wanted = pen.count(low, high)
    while len(found) < wanted:
        kind = pen.pick(PARAMETERS)
        found[pen.collection() if kind == "list" else pen.name()] = kind
    return list(found.items())


def function_header(pen: Pen, pad: str, first: str = "", defaults: bool = False) -> Function:
    """Draw a function and enter its scope; methods pass `first="self"`. The text is `header_text`."""
    taken = new_parameters(pen, 1, 3 if not first else 2)
    name = pen.name() if pen.chance(0.25) else pen.function()
    pen.enter(taken)
    return Function(name, tuple(taken), defaults, None)


def header_text(pen: Pen, pad: str, function: Function, first: str = "") -> str:
    """Write `def load(name, size):`."""
    listed = parameters(pen, [name for name, _ in function.parameters], function.defaults)
    return f"{pad}def {function.name}({f'{first}, ' * bool(first)}{listed}):\n"


def function(pen: Pen) -> str:
    """Write a function at module level, and mostly lines that call it."""
    outside = pen.variables
    made = function_header(pen, "", defaults=pen.chance(0.4))
    text = header_text(pen, "", made)
    text += f'{INDENT}"""{sentence(pen)}"""\n' if pen.chance(0.15) else ""
    text += statements(pen, INDENT, 1, 3)
    returned, kind = returns(pen, INDENT)
    pen.variables = outside
    made = made._replace(returns=kind)
    pen.functions.append(made)
    if pen.chance(0.7):
        returned += "\n\n" + calls(pen, made)
    return text + returned


def calls(pen: Pen, made: Function) -> str:
    """Write one or two calls of the function."""
    text = ""
    for _ in range(pen.count(1, 2)):
        written = call(pen, made)
        if made.returns is not None:
            written = f"{pen.bind(pen.new(made.returns), made.returns)} = {written}"
        text += f"{written}\n"
    return text


def returns(pen: Pen, pad: str) -> tuple[str, Kind | None]:
    """Write a return, and tell the type that it returns."""
    form = pen.count(0, 6)
    if form == 0:
        return "", None
    if form == 1:
        return f"{pad}return {pen.pick(('True', 'True', 'False'))}\n", "flag"
    if form == 2:
        text = f"{pad}if {condition(pen)}:\n{pad}{INDENT}return True\n"
        return f"{text}{pad}return {pen.pick(('False', f'{pen.known()} == True'))}\n", "flag"
    if form == 3:
        if pen.chance(0.25):
            return f"{pad}return {opened(pen, True)} if {short_condition(pen)} else None\n", "string"
        return f"{pad}return {ternary(pen)}\n", "number"
    if form == 4:
        return f"{pad}return {value(pen, 'number')} {pen.pick(OPERATORS)} {value(pen, 'number')}\n", "number"
    name = pen.known()
    kind = pen.variables.get(name, "number")
    return f"{pad}return {name}\n", "number" if kind in ("none", "instance") else kind


def small_functions(pen: Pen) -> str:
    """Write two or three functions named by a noun, without arguments."""
    texts = []
    for name in pen.names(pen.count(2, 3)):
        kind = pen.pick(PARAMETERS)
        texts.append(f"def {name}():\n{INDENT}return {value(pen, kind)}\n")
        pen.functions.append(Function(name, (), False, kind))
    return "\n\n".join(texts)


def short_function(pen: Pen, defaults: bool) -> str:
    """Write a function that returns one of its arguments, and leave its scope again."""
    outside = pen.variables
    made = function_header(pen, "", defaults=defaults)
    text = f"{header_text(pen, '', made)}{INDENT}return {pen.known()}\n"
    pen.variables = outside
    return text


def class_definition(pen: Pen) -> str:
    """Write a class whose `__init__` copies its arguments in any order, and lines that use an instance."""
    outside = pen.variables
    fields: list[tuple[str, Kind]] = [
        (name, pen.pick(PARAMETERS)) for name in pen.fields(pen.pick((1, 2, 2, 3, 3)))
    ]
    name = pen.class_name()
    text = f"class {name}:\n"
    if pen.chance(0.1):
        text += f'{INDENT}"""{sentence(pen)}"""\n\n'
    text += init(pen, [field for field, _ in fields])
    methods = []
    for _ in range(pen.count(0, 2)):
        made, written = method(pen, fields)
        methods.append(made)
        text += f"\n{written}"
    pen.variables = outside
    pen.classes.append(Class(name, tuple(fields), tuple(methods)))
    if pen.chance(0.7):
        text += f"\n\n{make_instance(pen, '')}"
        variable = next(reversed(pen.variables))
        text += use_instance(pen, "", variable) if variable in pen.instances else ""
    return text


def init(pen: Pen, fields: list[str]) -> str:
    """Write an `__init__` that copies its arguments in any order."""
    text = f"{INDENT}def __init__(self, {', '.join(fields)}):\n"
    for field in pen.different(fields, len(fields)):
        text += f"{INDENT * 2}self.{field} = {field}\n"
    return text


def method(pen: Pen, fields: list[tuple[str, Kind]]) -> tuple[Function, str]:
    """Write a method that uses an attribute of its class: a getter, a setter, or one with a body."""
    field, kind = pen.pick(fields)
    form = pen.count(0, 3)
    inner = INDENT * 2
    if form == 0:
        name = pen.name()
        text = f"{INDENT}def {name}(self):\n{inner}return self.{field}\n"
        return Function(name, (), False, kind), text
    if form == 1:
        name = pen.function()
        text = f"{INDENT}def {name}(self, {field}):\n{inner}self.{field} = {field}\n"
        return Function(name, ((field, kind),), False, None), text
    made = function_header(pen, INDENT, "self", defaults=pen.chance(0.3))
    text = header_text(pen, INDENT, made, "self") + statements(pen, inner, 1, 2)
    if kind == "number" and pen.chance(0.5):
        text += f"{inner}self.{field} += {value(pen, 'number')}\n"
    return made, f"{text}{inner}return self.{field}\n"


def keyword_call(pen: Pen, pad: str) -> str:
    """Write a call with keyword arguments that look like defaults."""
    named = ", ".join([f"{name}={default(pen)}" for name in pen.names(pen.count(1, 2))])
    return f"{pad}{pen.function()}({named})\n"
