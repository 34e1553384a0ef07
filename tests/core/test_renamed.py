"""Old names of options are refused with the new one: on the command line, in a sweep's file, in a config."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab.core import renamed
from sparsity_lab.core.renamed import renamed_in_config, renamed_in_overrides

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"a=x": "a=y", "a.kind=x": "a.kind=y", "old": "new", "a.b": "c.d"}
    monkeypatch.setattr(renamed, "RENAMED", table)


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        ("a=x", ["a=x is now a=y"]),
        ("a=z,x", ["a=x is now a=y"]),
        ("+old=3", ["old is now new"]),
        ("old.deep.key=3", ["old.deep.key is now new.deep.key"]),
        ("older=3", []),
        ("a.b=3", ["a.b is now c.d"]),
        ("~a.b.c", ["a.b.c is now c.d.c"]),
        ("a=y", []),
    ],
)
def test_an_override_with_an_old_name(override: str, lines: list[str]) -> None:
    assert renamed_in_overrides([override, "seed=1", override]) == lines


def test_a_config_with_old_names() -> None:
    values = {"a": {"kind": "x", "b": None}, "old": {"key": 3}, "seed": 0}
    lines = ["a.kind=x is now a.kind=y", "a.b is now c.d", "old.key is now new.key"]
    assert renamed_in_config(values) == lines


@pytest.mark.parametrize("arguments", [("sparsity=dense",), ("seed=0,1", "sparsity=dense,magnitude", "-m")])
def test_the_program_tells_the_new_name_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparsity_lab.run", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "sparsity=dense is now sparsity=none\n"


def test_the_old_key_of_a_sweeps_name_is_refused_in_files_only() -> None:
    assert renamed_in_config({"sweep": "mine", "seed": 0}) == ["sweep is now sweep_name"]
    assert renamed_in_overrides(["+sweep=width_l0", "sweep=mine"]) == []  # on the command line a group
