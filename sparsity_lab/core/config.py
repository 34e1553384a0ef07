"""Strict, frozen configs, and one line for each value that does not fit."""

import json
import types
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.spelling import replace_at, respelled


class Config(BaseModel):
    """Strict, frozen base of every config and record: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GrowingConfig(Config):
    """A config that leaves out its `later_fields` at their defaults when it is written.

    Files and hashes of the time before a field existed stay valid, and so do the results found by them.
    """

    later_fields: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _serialise(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        at_default = {
            name
            for name in self.later_fields
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in values.items() if name not in at_default}


C = TypeVar("C", bound=BaseModel)


def validate(cls: type[C], values: Any, where: str = "") -> C:
    """Build `cls` from plain containers.

    A float without a fraction may stand for an integer, and one item for a list (`spelling`).

    Raises:
        UserError: one line for each wrong key, `where.key: value: what is allowed`.
    """
    try:
        return _with_respelling(cls, values)
    except (TypeError, RecursionError) as error:
        raise UserError(f"{where or 'config'}: {error}") from None
    except ValidationError as error:
        raise UserError("\n".join(_lines(error.errors(), where, cls))) from None


def _with_respelling(cls: type[C], values: Any) -> C:
    try:
        # JSON mode: strict types, but a list may fill a tuple
        return cls.model_validate_json(json.dumps(values))
    except ValidationError as error:
        changed = values
        for wrong in error.errors():
            path, holder = _resolve(wrong["loc"], cls)
            field = getattr(holder, "model_fields", {}).get(path[-1] if path else "")
            new = respelled(wrong["input"], wrong["type"], field.annotation if field else None)
            if new is not wrong["input"]:
                with suppress(LookupError, TypeError):  # the error lies in a value that a validator made
                    changed = replace_at(changed, path, new)
        if changed is values:
            raise
    return _with_respelling(cls, changed)  # ends, because each value is respelled at most twice


def _lines(errors: Any, where: str, cls: type[BaseModel]) -> list[str]:
    """Return one line for each wrong key.

    Of a union, pydantic reports an error for each member. Those at one key become one line, and errors
    within one member's items replace the other members' error about the whole.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    of_union = set[str]()
    for error in errors:
        path, holder = _resolve(error["loc"], cls)
        key = ".".join(_shown(str(part)) for part in (where, *path) if part != "") or "config"
        value, message = _said(error, key, path, holder)
        messages = found.setdefault(key, (value, []))[1]
        messages += [] if message in messages else [message]
        if len([part for part in error["loc"] if isinstance(part, str)]) > len(path):
            of_union.add(key)
    hidden = {key for key in of_union if any(other.startswith(f"{key}.") for other in found)}
    return [f"{key}: {value}{', or '.join(m)}" for key, (value, m) in found.items() if key not in hidden]


def _said(error: Any, key: str, path: list[Any], holder: Any) -> tuple[str, str]:
    """Return the value, to be shown before the message, and the message."""
    if error["type"] == "extra_forbidden":
        allowed = list(getattr(holder, "model_fields", {}))
        near = get_close_matches(str(path[-1]), allowed, 1, 0.7)
        meant = f"; did you mean {near[0]}?" if near else ""
        return "", f"unknown key{meant}" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    if error["type"] == "missing":
        return "", "missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "tuple_type":
        message = "must be a list, as [a, b]"
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        quoted = f'"{error["input"]}"'
        whole = f"[{quoted}]" if isinstance(path[-1], int) else quoted
        at = key.rpartition(".")[0] if isinstance(path[-1], int) else key
        message = f"must be text; to give a number as text: '{at}={whole}'"
    value = "" if isinstance(error["input"], dict) else f"{_short(repr(error['input']))}: "
    return value, f"{message[0].lower()}{message[1:]}"


def _shown(text: str) -> str:
    """Return `text` unchanged if it is printable, else its `repr`."""
    return text if text.isprintable() else repr(text)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _resolve(loc: tuple[Any, ...], cls: Any) -> tuple[list[Any], Any]:
    """Return a key's path as users write it, without pydantic's union tags, and the class that holds it."""
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
        if _is_member(part, cls):
            continue
        path.append(part)
        holder = next((one for one in (cls, *_members(cls)) if hasattr(one, "model_fields")), cls)
        field = getattr(holder, "model_fields", {}).get(part)
        cls = field.annotation if field else None
    return path, holder


def _is_member(part: Any, annotation: Any) -> bool:
    """Return whether `part` of a path is pydantic's name for a union's member, as "literal['all']"."""
    members = _members(annotation)
    classes = [member for member in members if hasattr(member, "model_fields")]
    several = len([member for member in members if member is not type(None)]) > 1
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return is_union and several and not classes and isinstance(part, str)


def _members(cls: Any) -> list[Any]:
    """List the classes of a union, including one inside Annotated or Optional."""
    parts = get_args(cls)
    return [member for part in parts for member in _members(part) or [part]]
