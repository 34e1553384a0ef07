"""Atomic file writes, JSON, and locks between processes."""

import errno
import json
import logging
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import _plain

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically and durably, so that a crash or power loss never leaves it half-written.

    The data goes to a temporary sibling, is synced to disk, and is then renamed. A failed write leaves
    nothing behind. The next write removes the leftovers of a killed one. Only one writer at a time may
    write a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically (`write_bytes`)."""
    write_bytes(path, text.encode("utf-8"))


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` (a Config or plain containers) as indented JSON, atomically."""
    write_text(path, json.dumps(_plain(value), indent=1, sort_keys=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock for making `path`, across all machines that share its disk.

    The operating system releases the lock of a process that died. The empty `.NAME.lock` beside the path is
    never removed and has no meaning of its own.

    Raises:
        UserError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    if not acquired(lock):
        log.info("%s: another process is at work on it; waiting for it to end", path)
        acquired(lock, wait=True)
    try:
        yield
    finally:
        lock.release()


def acquired(lock: BaseFileLock, wait: bool = False) -> bool:
    """Acquire the lock and return True, or return False if another process holds it and `wait` is false.

    Raises:
        UserError: the file system has no locks.
    """
    try:
        with warnings.catch_warnings():  # of a lock that is a mere file, where the system call is missing
            warnings.simplefilter("ignore", UserWarning)
            lock.acquire(blocking=wait)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        folder = Path(lock.lock_file).parent
        raise UserError(
            f"root: {folder}: this file system has no locks; choose a root on another one"
        ) from None
    return True
