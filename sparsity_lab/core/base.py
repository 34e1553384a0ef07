"""What every room stands on: strict configs, content hashes, derived seeds, and folders that appear whole.

Nothing here imports torch, so the analysis and `--help` start in a moment.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, TypeVar, get_args

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger(__name__)

ABOUT = "about.json"
REMEDY = "delete the folder, and it is made again"


class UserError(Exception):
    """Bad input from outside: one clear line that names what is wrong and what is allowed."""


class Config(BaseModel):
    """Strict, frozen base of every config and record: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


C = TypeVar("C", bound=BaseModel)


def validate(cls: type[C], values: Any, where: str = "") -> C:
    """Build `cls` from plain containers.

    Raises:
        UserError: one line for each wrong key, `where.key: value: what is allowed`.
    """
    try:
        return cls.model_validate_json(json.dumps(values))  # strict for numbers, yet a list may fill a tuple
    except (TypeError, RecursionError) as error:
        raise UserError(f"{where or 'config'}: {error}") from None
    except ValidationError as error:
        raise UserError("\n".join(_one_line(e, where, cls) for e in error.errors())) from None


def _one_line(error: Any, where: str, cls: type[BaseModel]) -> str:
    path, holder = _resolve(error["loc"], cls)
    key = ".".join(_shown(str(part)) for part in (where, *path) if part != "") or "config"
    if error["type"] == "extra_forbidden":
        allowed = list(getattr(holder, "model_fields", {}))
        return f"{key}: unknown key" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    value = "" if isinstance(error["input"], dict) else f"{_short(repr(error['input']))}: "
    return f"{key}: {value}{message[0].lower()}{message[1:]}"


def _shown(text: str) -> str:
    """A text as it is, if a line of a terminal can show it."""
    return text if text.isprintable() else repr(text)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _resolve(loc: tuple[Any, ...], cls: Any) -> tuple[list[Any], Any]:
    """The path of a key as users write it, without pydantic's tags of unions, and the class that holds it."""
    path: list[Any] = []
    holder = cls
    for part in loc:
        kinds = {
            kind: member
            for member in _members(cls)
            if "kind" in getattr(member, "model_fields", {})
            for kind in get_args(member.model_fields["kind"].annotation)
        }
        if part in kinds:
            cls = kinds[part]
            continue
        path.append(part)
        holder = next((one for one in (cls, *_members(cls)) if hasattr(one, "model_fields")), cls)
        field = getattr(holder, "model_fields", {}).get(part)
        cls = field.annotation if field else None
    return path, holder


def _members(cls: Any) -> list[Any]:
    """The classes of a union, of one inside Annotated or Optional too."""
    parts = get_args(cls)
    return [member for part in parts for member in _members(part) or [part]]


def content_hash(*parts: Any) -> str:
    """Twelve hex digits that depend on the JSON form of `parts` alone."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one use of randomness, independent between different `names`."""
    text = json.dumps([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of a `with` block."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


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
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def _sync(path: Path) -> None:
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


def build(folder: Path, about: Mapping[str, Any], make: Callable[[Path], None], resume: bool = False) -> Path:
    """Return the finished `folder`; when it isn't there, `make` it first.

    `make` fills a sibling folder, which is renamed into place when it returns; two processes that want the
    same folder make it once (file lock). With `resume`, what an interrupted `make` left behind is kept for
    the next attempt; otherwise each attempt starts empty. `about` says what made the folder, in `about.json`,
    with the size and checksum of each file, which a finished folder is held to when it is used again.

    Raises:
        UserError: the finished folder has lost a file, or one has changed.
    """
    if (folder / ABOUT).exists():
        return _intact(folder)
    with locked(folder):
        if (folder / ABOUT).exists():
            return _intact(folder)
        if folder.exists():
            raise UserError(f"{folder}: has no {ABOUT}, so it is not what this program made; {REMEDY}")
        partial = partial_of(folder)
        if partial.exists() and not resume:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        try:
            make(partial)
            files = {name: _fingerprint(partial / name, sync=True) for name in _files(partial)}
            write_json(partial / ABOUT, {**about, "files": files})
        except BaseException:
            if not resume:
                shutil.rmtree(partial, ignore_errors=True)  # it may be what fills the disk
            raise
        partial.rename(folder)
        _sync(folder.parent)
    return folder


def partial_of(folder: Path) -> Path:
    """Where `build` makes a folder, until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ABOUT)


def _fingerprint(path: Path, sync: bool = False) -> list[int]:
    """Size and CRC-32."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(1 << 22):
            crc = zlib.crc32(data, crc)
        if sync:
            os.fsync(file.fileno())
        return [file.tell(), crc]


def _intact(folder: Path) -> Path:
    """`folder`, if each file that `about.json` lists is as it was; folders of old versions list none."""
    about = read_json(folder / ABOUT)
    files = about.get("files", {}) if isinstance(about, dict) else None
    if not isinstance(files, dict):
        raise UserError(f"{folder / ABOUT}: not a list of this folder's files; {REMEDY}")
    for name, expected in files.items():
        try:
            found = _fingerprint(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; {REMEDY}") from None
        if found != expected:
            raise UserError(f"{folder / name}: damaged, it is not as it was written; {REMEDY}")
    return folder
