"""The context before a task's question: lines as `tinypython` writes them that don't bear on the answer."""

from sparsity_lab.data.lexicon import CLASSES, INDENT, Pen, function_header, plain_lines


def opening(
    pen: Pen, shallowest: int = 0, deepest: int = 2, lines: tuple[int, int] = (1, 3)
) -> tuple[str, str]:
    """Context and the indentation at which the next statement stands.

    Depth 0 is module level, 1 a function's body, 2 a method's body.
    """
    depth = pen.count(shallowest, deepest)
    pad = INDENT * depth
    header = ""
    if depth == 1:
        header = plain_lines(pen, "", 0, 1) + function_header(pen, "")
    if depth == 2:
        header = f"class {pen.pick(CLASSES)}:\n{function_header(pen, INDENT, 'self')}"
    return header + plain_lines(pen, pad, *lines), pad
