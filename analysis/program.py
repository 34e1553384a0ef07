"""Shared helpers of the programs in this folder: arguments, output and errors."""

import argparse
import sys
from collections.abc import Sequence

from sparsity_lab.core.errors import UserError
from sparsity_lab.results.style import plain


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make an argument parser whose description is the first line of the docstring `doc`."""
    return argparse.ArgumentParser(
        description=(doc or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def say(text: str) -> None:
    """Write lines to standard output without terminal control characters."""
    sys.stdout.write(_shown(text))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns two spaces apart, numbers to the right; the first row is the header."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(set(cell) <= set("0123456789.,-") for cell in column[1:]) for column in columns]
    lines = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        for row in rows
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def refuse(error: UserError) -> int:
    """Write an error to standard error; return exit status 1."""
    sys.stderr.write(_shown(f"error: {error}"))
    return 1


def _shown(text: str) -> str:
    return "".join(f"{plain(line)}\n" for line in text.split("\n"))
