"""The last line of a run: the command for a circuit's page, or advice."""

import shlex
from pathlib import Path

import pytest

from sparsity_lab.core import next_command
from sparsity_lab.stages.next_step import next_step
from tests.analysis.made_up import empty_record, record, without_circuit

ROOT = Path(__file__).parents[2]


def test_the_page_of_the_smallest_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = record("sparse", 16, 100, 3.0, {"var_if": 30, "with_as": 20})
    monkeypatch.chdir(ROOT)
    line = next_step(found, tmp_path / "a run")
    assert line.startswith("a circuit's page: python analysis/view_circuit.py ")
    words = shlex.split(line.partition(": ")[2])
    assert (ROOT / words[1]).is_file()
    assert Path(words[2]).resolve() == tmp_path / "a run"
    assert words[3:] == ["--task", "with_as"]


def test_an_installed_package_names_its_circuits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_command, "ANALYSIS", tmp_path)
    found = record("sparse", 16, 100, 3.0, {"var_if": 30, "with_as": 20})
    assert next_step(found, tmp_path) == "circuits: var_if, with_as"


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (["not_askable", "not_askable"], "tasks.path=FILE"),
        (["not_askable", "not_learned"], "trainer.tokens"),
        (["no_circuit", "empty_solves"], "the record says why"),
    ],
)
def test_without_a_circuit(states: list[str], told: str, tmp_path: Path) -> None:
    tasks = tuple(without_circuit(f"t{i}", state) for i, state in enumerate(states))
    assert told in next_step(empty_record("a", tasks=tasks), tmp_path)
