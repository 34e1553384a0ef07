"""Text from outside is shown without what a terminal would obey."""

import logging

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.shown import PrintableFormatter, printable_lines

TYPED, SHOWN = "a\x1b[31m\u202e\U000c40b8\udcffé", "a\\x1b[31m\\u202e\\U000c40b8\\udcffé"


def test_lines_and_tabs_stay() -> None:
    assert printable_lines(f"{TYPED}\n\t{TYPED}") == f"{SHOWN}\n\t{SHOWN}"


def test_an_error_quotes_what_was_typed_and_stays_as_it_is_when_raised_again() -> None:
    error = UserError(f"seed={TYPED}: wrong")
    assert str(error) == str(UserError(str(error))) == f"seed={SHOWN}: wrong"


def test_log_lines() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "failed: %s", (TYPED,), None)
    assert PrintableFormatter("%(message)s").format(record) == f"failed: {SHOWN}"
