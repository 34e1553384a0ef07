"""The context before a task's question: text as `tinypython` writes it, with what competes with the cue.

Each task names the statements that compete: those of either answer, closed or finished. They are drawn at
random, at the question's own indentation and at another one, so that neither answer is the likelier after
them.
"""

from collections.abc import Sequence

from sparsity_lab.data.python.definitions import function_header, header_text
from sparsity_lab.data.python.lexicon import INDENT
from sparsity_lab.data.python.lines import bind_flag, bind_number, plain
from sparsity_lab.data.python.pen import Pen, Statement
from sparsity_lab.data.python.values import short_condition

MODULE, FUNCTION, DEEPER = 0, 1, 2
"""Where a question stands: at module level, in a function, or in a method or a block of a function."""


def context(
    pen: Pen,
    competing: Sequence[Statement],
    places: Sequence[int] = (MODULE, FUNCTION, DEEPER),
    lines: tuple[int, int] = (1, 2),
    elsewhere: float = 0.5,
) -> tuple[str, str]:
    """Return the context, and the indentation of the line that asks.

    `places`: drawn uniformly. `lines`: how many statements stand before the question at its indentation.
    `elsewhere`: probability of a competing statement at another indentation, before them.
    """
    competing = competing or (plain,)
    place = pen.pick(places)
    away = pen.chance(elsewhere)
    if place == MODULE:
        text = ""
        if away:
            header, pad = opening(pen, FUNCTION)
            text, pen.variables = f"{header}{pen.pick(competing)(pen, pad)}\n\n", {}
        return text + bind_number(pen, "") + compete(pen, "", competing, *lines), ""
    text = (bind_number(pen, "") + pen.pick(competing)(pen, "") + "\n\n") if away else ""
    header, pad = opening(pen, place)
    return text + header + compete(pen, pad, competing, *lines), pad


def opening(pen: Pen, place: int) -> tuple[str, str]:
    """Open a function, a method, or a block of a function; return its text and the indentation inside."""
    if place == MODULE:
        return "", ""
    if place == DEEPER and pen.chance(0.5):
        text = f"class {pen.class_name()}:\n"
        return text + header_text(pen, INDENT, function_header(pen, INDENT, "self"), "self"), INDENT * 2
    text = header_text(pen, "", function_header(pen, ""))
    if place == FUNCTION:
        return text, INDENT
    block = pen.pick((f"if {short_condition(pen)}:", f"while {pen.known()}:", "while True:", "else:"))
    if block == "else:":
        block = f"if {pen.known()}:\n{INDENT}{bind_flag(pen, INDENT)}{INDENT}else:"
    return f"{text}{INDENT}{block}\n", INDENT * 2


def compete(pen: Pen, pad: str, competing: Sequence[Statement], low: int, high: int) -> str:
    """Write low to high statements, two in three of which compete."""
    chosen = [pen.pick(competing) if pen.chance(0.67) else plain for _ in range(pen.count(low, high))]
    return "".join([statement(pen, pad) for statement in chosen])
