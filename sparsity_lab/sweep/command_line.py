"""The command line of the run program: Hydra's options may stand anywhere among the overrides."""

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from sparsity_lab.core.errors import UserError


def arranged(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the overrides first. Hydra's own parser takes them in one piece only.

    Raises:
        UserError: an option is unknown, or its value is missing or not allowed.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    given = parser.parse_intermixed_args(list(arguments))
    options: list[str] = []
    for action in parser._actions:
        value = getattr(given, action.dest, None)
        if action.option_strings and value not in (None, False):
            options += [action.option_strings[0], *([] if value is True else [value])]
    return [*given.overrides, *options]


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; expected KEY=VALUE, -m for a sweep, or --help")
