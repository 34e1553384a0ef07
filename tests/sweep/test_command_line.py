"""Hydra's options may stand anywhere on the command line; a wrong one is one line."""

import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.sweep.command_line import arranged


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a=1", "b=2"], ["a=1", "b=2"]),
        (["+sweep=x", "-m", "a=1"], ["+sweep=x", "a=1", "--multirun"]),
        (["-m", "a=1", "b=2"], ["a=1", "b=2", "--multirun"]),
        (["a=1", "--cfg", "job", "~b", "-p", "model"], ["a=1", "~b", "--cfg", "job", "--package", "model"]),
        (["--multirun", "a=[1,-2]", "b=-3"], ["a=[1,-2]", "b=-3", "--multirun"]),
        (["a=1", "--info"], ["a=1", "--info", "all"]),
    ],
)
def test_the_overrides_come_first(arguments: list[str], expected: list[str]) -> None:
    assert arranged(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a=1", "--multi-run"], "unrecognized arguments: --multi-run; expected KEY=VALUE, -m for a sweep"),
        (["--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs'"),
        (["a=1", "--cfg"], "argument --cfg/-c: expected one argument"),
        (["-x", "a=1"], "unrecognized arguments: -x"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        arranged(arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
