"""Values that a command line spells otherwise than the type asks: 1e6 for an integer, one item for a list."""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

MAX_EXACT = 2**53  # beyond it, a float no longer stands for one integer


def respelled(value: Any, error_type: str, annotation: Any) -> Any:
    """Return `value` as the field's type spells it, or `value` itself if that is not clear.

    `error_type` is pydantic's name of the error that `value` caused, `annotation` the field's type. A float
    without a fraction becomes an integer, and a single item a tuple of one, where any length is allowed.
    """
    if (
        error_type == "int_type"
        and isinstance(value, float)
        and value.is_integer()
        and abs(value) < MAX_EXACT
    ):
        return int(value)
    scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
    if error_type == "tuple_type" and scalar and _has_any_length(annotation):
        return [value]
    return value


def replace_at(values: Any, path: Iterable[Any], value: Any) -> Any:
    """Return a copy of nested containers with `value` at `path`."""
    first, *rest = path
    copy = list(values) if isinstance(values, list | tuple) else dict(values)
    copy[first] = replace_at(copy[first], rest, value) if rest else value
    return copy


def _has_any_length(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return any(_has_any_length(part) for part in get_args(annotation))
    return get_origin(annotation) is tuple and get_args(annotation)[1:] == (Ellipsis,)
