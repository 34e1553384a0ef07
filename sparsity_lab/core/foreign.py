"""Turn any exception of a third-party library into a one-line UserError."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.shown import printable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Turn any error of a library in the block into a UserError: `what`, then the whole message.

    A panic of a Rust library, which is a BaseException, counts as an error. Our own UserError, interruptions,
    a full disk and a lack of memory pass through unchanged.

    Raises:
        UserError: the library raised an error.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        raise UserError(f"{what}: {one_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # each Rust library defines its own class of this name
            raise
        raise UserError(f"{what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Format an error and its explicit causes, type and message, as one printable line."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < 5:
        message = " ".join(_message(current).split())
        part = f"{type(current).__name__}: {message}" if message else type(current).__name__
        if not any(message and message in earlier for earlier in parts):
            parts.append(part)
        current = current.__cause__
    return printable("; caused by ".join(parts))


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):  # its own text has links and the values' Python types
        found = [(".".join(map(str, wrong["loc"])), wrong["msg"]) for wrong in error.errors()]
        return "; ".join(f"{key}: {message}" if key else message for key, message in found)
    return str(error)
