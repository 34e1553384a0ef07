"""Files that are whole under their names at every moment, JSON, and locks between processes."""

import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import _plain

log = logging.getLogger(__name__)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is whole under its name at every moment, and stays so when the power goes.

    A temporary sibling, its content on disk before its name; a failed write leaves nothing, and what a killed
    one left is cleared away. A file has one writer at a time.
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
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on disk."""
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
    """Be the only process that makes `path`, on any machine that shares its disk.

    The system keeps the lock, and frees that of a process that died; the empty `.NAME.lock` beside the path
    stays and means nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("%s: another process is at work on it; waiting for it to end", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
