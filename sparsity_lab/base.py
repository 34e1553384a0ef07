"""What every room stands on: strict configs, content hashes, derived seeds, and folders that appear whole.

Nothing here imports torch, so the analysis and `--help` start in a moment.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

ABOUT = "about.json"


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
    except TypeError as error:
        raise UserError(f"{where or 'config'}: {error}") from None
    except ValidationError as error:
        raise UserError("\n".join(_one_line(e, where, cls) for e in error.errors())) from None


def _one_line(error: Any, where: str, cls: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in (where, *error["loc"]) if part != "") or "config"
    if error["type"] == "extra_forbidden":
        allowed = _fields_at(cls, error["loc"][:-1])
        return f"{key}: unknown key" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    value = "" if isinstance(error["input"], dict) else f"{error['input']!r}: "
    return f"{key}: {value}{message[0].lower()}{message[1:]}"


def _fields_at(cls: Any, loc: tuple[Any, ...]) -> list[str]:
    for part in loc:
        field = getattr(cls, "model_fields", {}).get(part)
        cls = field.annotation if field else None
    return list(getattr(cls, "model_fields", {}))


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


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole under its name at every moment (temporary sibling, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def build(folder: Path, about: Mapping[str, Any], make: Callable[[Path], None], resume: bool = False) -> Path:
    """Return the finished `folder`; when it isn't there, `make` it first.

    `make` fills a sibling folder, which is renamed into place when it returns; two processes that want the
    same folder make it once (file lock). With `resume`, what an interrupted `make` left behind is kept for
    the next attempt; otherwise each attempt starts empty. `about` says what made the folder, in `about.json`.
    """
    if (folder / ABOUT).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / ABOUT).exists():
            return folder
        partial = folder.with_name(f".{folder.name}.partial")
        if partial.exists() and not resume:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        make(partial)
        write_json(partial / ABOUT, dict(about))
        partial.rename(folder)
    return folder
