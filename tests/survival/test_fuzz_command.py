"""A sample of fuzz_command.py's command lines, and the oracle itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_command import KEYS, Outcome, fault, fuzz, outcome, own_folder


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path) -> Iterator[None]:
    """A working directory and a home of their own."""
    with own_folder(tmp_path):
        yield


def test_command_lines_are_refused_in_a_line_or_composed() -> None:
    refused, ran = fuzz(40)
    assert refused + ran >= 40
    assert refused > 10


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["trainer.tokens=1e6", "tasks.names=with_as", "pruning.targets=0.15"], 0),
        (["experiment=smoke", "corpus=folder", "corpus.path=."], 0),
        (["model.dmodel=64"], 1),
        (["trainer.tokens=1.5"], 1),
        (["tasks.names=-1.4e-45"], 1),
        (["tasks.names={a: 1}"], 1),
        (["-m", "--cfg=job"], 1),
        (["-m", "+bridge.boundaries=1"], 1),
        (["bridge=[[1],[2]]", "finder.give_up=null"], 1),
        (["--nothing", "seed=\x16\U000c40b8"], 1),
        (["of=\x16"], 1),
        (["seed=x", "root='a\u202e'", "hydra.job.name='\x1b[31m'"], 1),
        (["-m", "seed=x", "root='\x1b[31m'"], 1),
    ],
)
def test_some_by_hand(command: list[str], status: int) -> None:
    found = outcome(command)
    assert (found.status, fault(command, found)) == (status, ""), found.output
    assert found.runs == 1 - status


@pytest.mark.parametrize(
    ("status", "output", "runs"),
    [
        (0, "", 0),
        (1, "", 0),
        (3, "a: wrong\n", 0),
        (1, "Traceback (most recent call last):\n", 0),
        (1, "names.literal['all']: wrong\n", 0),
        (1, "a: \x1b[31m\n", 0),
        (1, "a: wrong\n" * 20, 0),
    ],
)
def test_the_oracle_sees_faults(status: int, output: str, runs: int) -> None:
    assert fault(["a=1"], Outcome(status=status, output=output, runs=runs))


def test_the_keys_are_those_of_the_config() -> None:
    assert {"seed", "model.d_model", "model.path", "corpus.text_column", "reference.model.d_model"} <= set(
        KEYS
    )
