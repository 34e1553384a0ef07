"""The boundary to libraries: any error is one line with our key; an interruption is no error."""

import errno

import pytest
from pydantic import TypeAdapter, ValidationError

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.signals import Interrupted


class PanicException(BaseException):
    """As pyo3 names what a Rust library panics with."""


def invalid() -> ValidationError:
    """An error of a library that uses pydantic."""
    try:
        TypeAdapter(dict[str, list[int]]).validate_python({"sizes": [1, "x"]})
    except ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TypeError("Couldn't cast\n  string to null"), "a.b: TypeError: Couldn't cast string to null"),
        (NotImplementedError(), "a.b: NotImplementedError"),
        (PanicException("StackOverflow"), "a.b: PanicException: StackOverflow"),
        (ValueError("red \x1b[31m\ud800"), r"a.b: ValueError: red \x1b[31m\ud800"),
        (StopIteration("over"), "a.b: StopIteration: over"),
        (invalid(), "a.b: ValidationError: sizes.1: Input should be a valid integer, unable to parse"),
    ],
)
def test_any_error_is_one_printable_line(error: BaseException, told: str) -> None:
    with pytest.raises(UserError) as raised, foreign("a.b"):
        raise error
    assert str(raised.value).partition(" string as an integer")[0] == told


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("generation failed", "a.b: ValueError: generation failed; caused by KeyError: 'column'"),
        ("failed: 'column'", "a.b: ValueError: failed: 'column'"),  # once is enough
    ],
)
def test_the_cause_of_an_error_is_told_and_not_twice(message: str, told: str) -> None:
    error = ValueError(message)
    error.__cause__ = KeyError("column")
    with pytest.raises(UserError) as raised, foreign("a.b"):
        raise error
    assert str(raised.value) == told


@pytest.mark.parametrize(
    "error",
    [
        UserError("c.d: wrong"),
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
        Interrupted(15),
        SystemExit(3),
    ],
)
def test_what_is_no_librarys_error_passes_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, foreign("a.b"):
        raise error
    assert raised.value is error
