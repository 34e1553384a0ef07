"""The name of a sweep is one folder below the root, and never one of the stages' folders."""

import re
from pathlib import Path

import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.names import RESERVED, destination

PACKAGE = Path(__file__).parents[2] / "sparsity_lab"


def test_a_sweep_has_one_folder_below_the_root(tmp_path: Path) -> None:
    assert destination(str(tmp_path), "width_l0.v-2").folder == tmp_path / "width_l0.v-2"
    assert destination(str(tmp_path), None).folder == tmp_path / "single"


@pytest.mark.parametrize("name", ["", "../out", "a/b", "x y", ".jobs", "-m", "a" * 65, "ä", "a\n", "/tmp"])
def test_a_name_that_is_no_folder_below_the_root_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        destination("runs", name)
    assert re.match(r"sweep_name: .*: allowed: 1 to 64 letters, digits, \. _ -", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["models", "Corpora", "single", "logs", "null"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^sweep_name: '{name}': this name is taken"):
        destination("runs", name)


def test_every_stages_folder_is_taken() -> None:
    rooms = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "from sparsity_lab.core.stage import" in text:
            rooms |= set(re.findall(r'\bStage\(\s*(?:room=)?"(\w+)"', text))
    assert len(rooms) >= 7
    assert rooms | {"models", "bridges"} <= set(RESERVED)


def test_every_mistake_has_its_own_line() -> None:
    with pytest.raises(UserError) as caught:
        destination(None, "a/b")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["root", "sweep_name"]
