"""Start a program from the command line. A reader that has gone, as in `| head`, is no error."""

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

BROKEN_PIPE = 128 + signal.SIGPIPE  # the exit status that a shell gives a process ended by this signal


def start(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit with the status that it returns.

    If nobody reads the output any more, write no more of it and exit with status 141.
    """
    try:
        try:
            status: int | str | None = main()
        except SystemExit as ended:
            status = ended.code
        sys.stdout.flush()
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # else Python's last flush fails, with a message
        status = BROKEN_PIPE
    sys.exit(status)


def reader_has_gone() -> bool:
    """Return whether nobody reads the output. A BrokenPipeError may be another pipe's, such as a worker's."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # output is kept in memory
        return False
    poll = select.poll()
    poll.register(output, 0)  # only what is always reported: an error, or that the other end is closed
    return bool(poll.poll(0))
