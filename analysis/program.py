"""What the programs of this folder share: arguments, lines for people, refusals."""

import argparse
import sys

from sparsity_lab.core.errors import UserError
from sparsity_lab.results.style import plain


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser of a program's arguments, described by the first line of its docstring `doc`."""
    return argparse.ArgumentParser(
        description=(doc or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def say(text: str) -> None:
    """Write lines to standard output, without whatever in them could steer a terminal."""
    sys.stdout.write(_shown(text))


def refuse(error: UserError) -> int:
    """Write an error to standard error; returns the exit status that goes with it."""
    sys.stderr.write(_shown(f"error: {error}"))
    return 1


def _shown(text: str) -> str:
    return "".join(f"{plain(line)}\n" for line in text.split("\n"))
