"""The one error that is shown to users without a traceback."""

from sparsity_lab.core.shown import printable_lines


class UserError(Exception):
    """Bad input from outside. The message is one line that names the fault and the allowed values.

    Messages quote what was typed or read; `str(error)` escapes what a terminal cannot show.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())
