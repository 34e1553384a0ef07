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

MODULE, FUNCTION, DEEPER, DEEPEST = 0, 1, 2, 3
"""Where a question stands: at module level, in a function, in a method or a block of a function, in a block
of a method. Its indentation is four spaces for each level."""


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
    in_class = place == DEEPEST or (place == DEEPER and pen.chance(0.5))
    pad = INDENT if in_class else ""
    text = f"class {pen.class_name()}:\n" if in_class else ""
    text += header_text(pen, pad, function_header(pen, pad, "self" * in_class), "self" * in_class)
    pad += INDENT
    if len(pad) == len(INDENT) * place:
        return text, pad
    block = pen.pick((f"if {short_condition(pen)}:", f"while {pen.known()}:", "while True:", "else:"))
    if block == "else:":
        block = f"if {pen.known()}:\n{pad}{bind_flag(pen, INDENT)}{pad}else:"
    return f"{text}{pad}{block}\n", pad + INDENT


def compete(pen: Pen, pad: str, competing: Sequence[Statement], low: int, high: int) -> str:
    """Write low to high statements; one of them competes, and two in three of the others."""
    wanted = pen.count(low, high)
    first = pen.count(0, wanted - 1)
    chosen = [pen.pick(competing) if place == first or pen.chance(0.67) else plain for place in range(wanted)]
    return "".join([statement(pen, pad) for statement in chosen])
