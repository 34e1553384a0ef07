"""Paths in configs: kept as they were written, resolved once against the directory of the command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, PlainSerializer, PlainValidator
from pydantic import SerializationInfo as Info

AS_READ = {"paths": "as read"}  # the context in which a config is dumped with paths as the places they name
_NULLS = ("none", "null")  # what a script writes for a missing value
_of_command: Path | None = None


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Resolve relative paths against `folder` in the block, even if the working directory changes meanwhile.

    Hydra changes it with `hydra.job.chdir`. Outside of such a block, the working directory counts.
    """
    global _of_command
    before, _of_command = _of_command, folder.absolute()
    try:
        yield
    finally:
        _of_command = before


class UserPath(os.PathLike[str]):
    """The type of every path in a config: not empty, `~` expanded, and absolute.

    `str` gives the path as it was written, as messages show it. `os.fspath`, and so `Path`, gives the
    absolute path. A config is dumped with paths as they were written, or in the context `AS_READ` with
    the places they name, links followed, so that a hash tells two files of one relative path apart, and a
    record can be used in another folder.

    Raises:
        ValueError: the path is empty or "null", or names the home of an unknown user.
    """

    def __init__(self, written: "str | os.PathLike[str]") -> None:
        self.written = str(written)
        self.absolute: Path = written.absolute if isinstance(written, UserPath) else _resolve(self.written)

    def __fspath__(self) -> str:
        return str(self.absolute)

    def __str__(self) -> str:
        return self.written

    def __repr__(self) -> str:
        return repr(self.written)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UserPath):
            return NotImplemented
        return (self.written, self.absolute) == (other.written, other.absolute)

    def __hash__(self) -> int:
        return hash((self.written, self.absolute))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        text = PlainSerializer(_serialised, return_type=str)
        return handler.generate_schema(Annotated[Any, PlainValidator(_validated), text])


def _name_or_path(text: str) -> str:
    UserPath(text)
    return text


def _serialised(path: UserPath, info: Info) -> str:
    return os.path.realpath(path.absolute) if info.context == AS_READ else path.written


def _name_serialised(text: str, info: Info) -> str:
    return _serialised(UserPath(text), info) if os.path.exists(UserPath(text)) else text


# a path only if something is there
NameOrPath = Annotated[str, AfterValidator(_name_or_path), PlainSerializer(_name_serialised, return_type=str)]


def _validated(value: Any) -> UserPath:
    if not isinstance(value, str | os.PathLike):
        raise ValueError("must be a path, as text")
    return UserPath(value)


def _resolve(written: str) -> Path:
    if not written.strip():
        raise ValueError("a path must not be empty; the folder of the command is .")
    if written.strip().lower() in _NULLS:
        raise ValueError(f"must be a path; a folder of this name is ./{written.strip()}")
    if "\0" in written:
        raise ValueError("a path must not contain a NUL character")
    expanded = os.path.expanduser(written)  # Path would take ./~ for ~
    if expanded.startswith("~"):
        raise ValueError(f"{written.partition('/')[0]} is no user's home here")
    path = Path(expanded)
    return path if path.is_absolute() else (_of_command or Path.cwd()) / path
