"""Single statements of `tinypython`. Each function writes whole indented lines.

A variable is bound to a value of some type, and used later as its type asks: a set takes `.add`, a string
` += "..."`, a list `.append`, a dict `[key] = ...`. So the best prediction depends on a line far above.
"""

from collections.abc import Sequence

from sparsity_lab.data.python.lexicon import (
    COMMENTS,
    DETERMINERS,
    DIGITS,
    KEYWORD_COMMENTS,
    MODULES,
    OPERATORS,
)
from sparsity_lab.data.python.pen import KINDS, Kind, Pen, Statement
from sparsity_lab.data.python.strings import (
    bind_file,
    bind_fstring,
    bind_string,
    open_if,
    print_fstring,
    print_more,
    print_more_fstring,
    print_string,
)
from sparsity_lab.data.python.values import (
    call,
    comparison,
    comprehension,
    expression,
    instance,
    list_of_dicts,
    literal,
    nested_list,
    numbered_dict,
    short_condition,
    ternary,
    value,
)

ENDS = ("", "", ".", ":", "!")  # of comments


def bind(pen: Pen, pad: str) -> str:
    """Bind a variable to a value of some type; now and then a variable that held another type."""
    kind = pen.pick(KINDS)
    text = expression(pen, kind)
    return f"{pad}{pen.bind(pen.new(kind), kind)} = {text}\n"


def bind_number(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.bind(pen.new('number'), 'number')} = {pen.pick(DIGITS)}\n"


def bind_sum(pen: Pen, pad: str) -> str:
    text = f"{value(pen, 'number')} {pen.pick(OPERATORS)} {value(pen, 'number')}"
    return f"{pad}{pen.bind(pen.new('number'), 'number')} = {text}\n"


def bind_call(pen: Pen, pad: str) -> str:
    """Call a function that the program defines, as it was defined; any function if there is none."""
    if not pen.functions:
        text = f"{pen.function()}({pen.known()})"
        returns: Kind | None = "number"
    else:
        function = pen.pick(pen.functions)
        text, returns = call(pen, function), function.returns
        if returns is None:
            return f"{pad}{text}\n"
    kind: Kind = returns  # type: ignore[assignment]
    return f"{pad}{pen.bind(pen.new(kind), kind)} = {text}\n"


def call_any(pen: Pen, pad: str) -> str:
    """Call a function of the program, or a short function with two variables."""
    if pen.functions and pen.chance(0.7):
        return f"{pad}{call(pen, pen.pick(pen.functions))}\n"
    return f"{pad}{pen.function()}({pen.known()}, {pen.known()})\n"


def call_module(pen: Pen, pad: str) -> str:
    """Call a function of a module by its full name."""
    module = pen.pick(tuple(MODULES))
    return call_of(pen, pad, module)


def call_of(pen: Pen, pad: str, module: str) -> str:
    function, kind = MODULES[module]
    argument = value(pen, kind)  # type: ignore[arg-type]
    return f"{pad}{pen.bind(pen.new('number'), 'number')} = {module}.{function}({argument})\n"


def make_instance(pen: Pen, pad: str) -> str:
    """Make an instance with the arguments that its class takes; a number if there is no class."""
    if not pen.classes:
        return bind_number(pen, pad)
    of = pen.pick(pen.classes)
    text = instance(pen, of)
    name = pen.bind(pen.new("instance"), "instance")
    pen.instances[name] = of
    return f"{pad}{name} = {text}\n"


def use(pen: Pen, pad: str) -> str:
    """Use a variable in scope as its type asks."""
    if not pen.variables:
        return bind(pen, pad)
    name = pen.known()
    return use_as(pen, pad, name, pen.variables[name])


def use_as(pen: Pen, pad: str, name: str, kind: Kind) -> str:
    """Use the variable, which holds a value of this type."""
    form = pen.count(0, 2)
    if kind == "number":
        step = value(pen, "number")
        return (f"{pad}{name} += {step}\n", f"{pad}{name} = {name} {pen.pick(OPERATORS)} {step}\n")[form > 1]
    if kind == "string":
        return (f"{pad}{name} += {pen.string()}\n", f"{pad}{name} = {name}.strip()\n")[form > 1]
    if kind == "list":
        return f"{pad}{name}.append({value(pen, pen.pick(('number', 'string')))})\n"
    if kind == "set":
        return f"{pad}{name}.add({value(pen, pen.pick(('number', 'string')))})\n"
    if kind == "dict":
        return f"{pad}{name}[{pen.pick(DIGITS) if form else pen.string()}] = {pen.known()}\n"
    if kind == "flag":
        return f"{pad}{name} = not {name}\n"
    if kind == "none":
        pen.bind(name, "number")
        return f"{pad}{name} = {pen.pick(DIGITS)}\n"
    return use_instance(pen, pad, name)


def use_instance(pen: Pen, pad: str, name: str) -> str:
    """Read or set an attribute of the instance, or call a method of its class."""
    of = pen.instances.get(name)
    if of is None:
        return f"{pad}print({name})\n"
    if of.methods and pen.chance(0.4):
        return f"{pad}{name}.{call(pen, pen.pick(of.methods))}\n"
    field, kind = pen.pick(of.fields)
    if pen.chance(0.5):
        return f"{pad}{name}.{field} = {value(pen, kind)}\n"
    return f"{pad}{pen.bind(pen.new(kind), kind)} = {name}.{field}\n"


def comment_line(pen: Pen, pad: str, phrases: Sequence[str] = COMMENTS) -> str:
    """Write a comment, which ends in a word or a mark."""
    return f"{pad}# {pen.pick(phrases)} {pen.pick(DETERMINERS)} {pen.known()}{pen.pick(ENDS)}\n"


def comment(pen: Pen, pad: str) -> str:
    # a block needs a statement besides the comment
    return comment_line(pen, pad) + use(pen, pad)


def remark(*keywords: str) -> Statement:
    """A comment, alone, that uses one of these keywords as a word."""
    phrases = [phrase for keyword in keywords for phrase in KEYWORD_COMMENTS[keyword]]
    return lambda pen, pad: comment_line(pen, pad, phrases)


def bind_flag(pen: Pen, pad: str) -> str:
    """Bind a flag: True, False, or a comparison."""
    text = pen.pick(("True", "True", "False", f"{pen.known()} == True", comparison(pen)))
    return f"{pad}{pen.bind(pen.new('flag'), 'flag')} = {text}\n"


def bind_none(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.bind(pen.new('none'), 'none')} = None\n"


def bind_ternary(pen: Pen, pad: str) -> str:
    """Bind a variable, or add to one, on a condition."""
    text = ternary(pen)
    if pen.chance(0.35):
        return f"{pad}{pen.number()} += {text}\n"
    return f"{pad}{pen.bind(pen.new('number'), 'number')} = {text}\n"


def bind_alternative(pen: Pen, pad: str) -> str:
    """Bind a variable to another one on a condition, else to a literal."""
    kind = pen.pick(KINDS)
    text = f"{pen.known()} if {short_condition(pen)} else {literal(pen, kind)}"
    return f"{pad}{pen.bind(pen.new(kind), kind)} = {text}\n"


def call_f(pen: Pen, pad: str) -> str:
    """Call a function named `f`, which looks like the prefix of a string."""
    text = f"f({value(pen, 'number')})"
    return f"{pad}{pen.bind(pen.new('number'), 'number')} = {text}\n" if pen.chance(0.6) else f"{pad}{text}\n"


def print_ternary(pen: Pen, pad: str) -> str:
    return f"{pad}{pen.pick(('print', pen.function()))}({ternary(pen)})\n"


def swap(pen: Pen, pad: str) -> str:
    """Swap two variables, mostly of the scope."""
    found = list(pen.variables)
    first, second = pen.different(found, 2) if len(found) > 1 and pen.chance(0.5) else pen.names(2)
    kinds = pen.variables
    if first in kinds and second in kinds and "instance" not in (kinds[first], kinds[second]):
        kinds[first], kinds[second] = kinds[second], kinds[first]
    return f"{pad}{first}, {second} = {second}, {first}\n"


def set_attribute(pen: Pen, pad: str) -> str:
    """Set an attribute to the variable of the same name."""
    (field,) = pen.fields(1)
    return f"{pad}{pen.known()}.{field} = {field}\n"


def bind_list(pen: Pen, pad: str) -> str:
    text = pen.pick((nested_list, nested_list, list_of_dicts))(pen)
    return f"{pad}{pen.bind(pen.new('list'), 'list')} = {text}\n"


def bind_dict(pen: Pen, pad: str) -> str:
    text = numbered_dict(pen)
    return f"{pad}{pen.bind(pen.new('dict'), 'dict')} = {text}\n"


def bind_comprehension(pen: Pen, pad: str) -> str:
    text = comprehension(pen)
    return f"{pad}{pen.bind(pen.new('list'), 'list')} = {text}\n"


def key_function(pen: Pen, pad: str) -> str:
    """Write a lambda of one or two arguments, bound or as a key."""
    first, second = pen.names(2)
    if pen.chance(0.4):
        text = f"lambda {first}, {second}: {first} {pen.pick(OPERATORS)} {second}"
    else:
        text = f"lambda {first}: {first} {pen.pick(OPERATORS)} {pen.pick(DIGITS)}"
    if pen.chance(0.5):
        return f"{pad}{pen.function()} = {text}\n"
    return f"{pad}{pen.bind(pen.collection(), 'list')} = sorted({pen.many()}, key={text})\n"


def commented_for(pen: Pen, pad: str) -> str:
    """Write a loop's header as a comment, and a statement after it."""
    item = ", ".join(pen.names(pen.pick((1, 1, 2))))
    after = pen.pick((use, use, print_string, call_any, bind_string, bind_list))
    return f"{pad}# for {item} in {pen.many()}:\n{after(pen, pad)}"


PLAIN: tuple[Statement, ...] = (
    *(bind_number, bind_number, bind_sum, bind_call, bind_call, call_any, call_any, comment, use, use, use),
)


def plain(pen: Pen, pad: str) -> str:
    """Write one statement without a string, a square bracket literal, a condition or a loop of its own."""
    return pen.pick(PLAIN)(pen, pad)


def plain_lines(pen: Pen, pad: str, low: int, high: int) -> str:
    """Write low to high plain statements."""
    return "".join([plain(pen, pad) for _ in range(pen.count(low, high))])


LINES: tuple[Statement, ...] = (
    *(bind,) * 5,
    *(use,) * 10,
    *(bind_call,) * 3,
    *(call_any, call_f, make_instance, comment, comment, bind_none, bind_number, bind_sum),
    *(print_string, print_string, print_more, print_more, print_fstring, print_fstring, print_more_fstring),
    *(
        bind_string,
        bind_file,
        bind_fstring,
        bind_flag,
        bind_flag,
        bind_ternary,
        print_ternary,
        bind_alternative,
    ),
    *(swap,) * 3,
    *(set_attribute, bind_list, bind_list, bind_list, bind_dict, bind_dict, bind_dict),
    *(key_function, key_function, open_if, commented_for, commented_for, commented_for),
)
