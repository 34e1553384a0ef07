"""Statements of `tinypython` about text: strings that are printed or bound, f-strings, files."""

from sparsity_lab.data.python.lexicon import INPUT_FILES, OUTPUT_FILES
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import fstring, opened, short_condition


def print_string(pen: Pen, pad: str) -> str:
    quote = pen.quote()
    return f"{pad}print({quote}{pen.inside(quote)}{quote})\n"


def print_more(pen: Pen, pad: str) -> str:
    """Print a variable or a string, and then a string."""
    quote = pen.quote()
    return f"{pad}print({pen.pick((pen.known(), pen.string()))}, {quote}{pen.inside(quote)}{quote})\n"


def print_fstring(pen: Pen, pad: str) -> str:
    return f"{pad}print({fstring(pen)})\n"


def print_more_fstring(pen: Pen, pad: str) -> str:
    return f"{pad}print({pen.pick((pen.known(), pen.string()))}, {fstring(pen)})\n"


def bind_string(pen: Pen, pad: str) -> str:
    quote = pen.quote()
    return f"{pad}{pen.bind(pen.new('string'), 'string')} = {quote}{pen.inside(quote)}{quote}\n"


def bind_file(pen: Pen, pad: str) -> str:
    """Bind a variable to a file's name."""
    quote, file = pen.quote(), pen.file(pen.pick((INPUT_FILES, OUTPUT_FILES)))
    return f"{pad}{pen.bind(pen.new('string'), 'string')} = {quote}{file}{quote}\n"


def bind_fstring(pen: Pen, pad: str) -> str:
    text = fstring(pen)
    return f"{pad}{pen.bind(pen.new('string'), 'string')} = {text}\n"


def open_if(pen: Pen, pad: str) -> str:
    """Open a file on a condition."""
    text = f"{opened(pen, pen.chance(0.5))} if {short_condition(pen)} else None"
    if pen.chance(0.4):
        return f"{pad}{pen.function()}({text})\n"
    return f"{pad}{pen.pick(('file', 'file', 'stream'))} = {text}\n"
