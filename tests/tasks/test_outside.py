"""Tasks of the user's own: read from files, beside the package's, and hashed by all that they ask."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.tasks.asked import asked_pairs, task_hash
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.tasks.task import Split

TASK = """
from sparsity_lab.tasks.task import Pair, Task
def make(rng):
    text = f"x{{rng.randrange(10**6)}}"
    return Pair(f"({{text}}", f"[{{text}}", ("){end}", "]"))
TASK = Task({name!r}, {description!r}, make)
"""


def write(path: Path, name: str = "own", description: str = "closes it", end: str = "") -> Path:
    path.write_text(TASK.format(name=name, description=description, end=end))
    return path


def config(path: Path | None, **values: object) -> TasksConfig:
    few = {"n_train_pairs": 8, "n_select_pairs": 4, "n_test_pairs": 4}
    return validate(TasksConfig, {"path": path and str(path), **few, **values}, "tasks")


def test_all_means_the_files_tasks_and_names_may_mix(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py")
    assert config(path).asked() == ("own",)
    assert config(path, names=["own", "with_as"]).asked() == ("own", "with_as")
    assert config(path).available().keys() == {*TASKS, "own"}
    assert len(asked_pairs(config(path), "own", "train")) == 8


def test_a_folder_of_files_and_several_tasks_in_a_file(tmp_path: Path) -> None:
    write(tmp_path / "b.py", "b")
    write(tmp_path / "_helper.py", "not_asked")
    several = write(tmp_path / "several.py", "z")
    several.write_text(several.read_text() + "TASKS = [TASK, Task('a', '', make)]\n")
    assert config(tmp_path).asked() == ("a", "b", "z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "no task here; allowed: TASK = Task(...)"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("TASK = 3", "3 is not a sparsity_lab.tasks.task.Task"),
        (TASK.format(name="with_as", description="", end=""), "task 'with_as': the package has a task"),
        (TASK.format(name="../up", description="", end=""), "task '../up': allowed in a name"),
    ],
)
def test_a_file_that_cannot_serve_is_told_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        config(path)
    assert str(caught.value).startswith(f"tasks.path: {path}: ")
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_files_and_names_given_twice_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tasks\.path: .*away\.py: No such file"):
        config(tmp_path / "away.py")
    with pytest.raises(UserError, match=r"tasks\.path: .*no \.py or \.jsonl file in this folder"):
        config(tmp_path)
    write(tmp_path / "a.py")
    write(tmp_path / "b.py")
    with pytest.raises(UserError, match=r"b\.py: task 'own': .*a\.py has a task of this name"):
        config(tmp_path)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        ("def make(rng): return {}['x']", "task own: make: KeyError: 'x'"),
        ("def make(rng): return 'x'", "task own: make returns 'x'; allowed: a Pair of texts, two answers"),
    ],
)
def test_a_generator_that_fails_is_told_in_one_line(tmp_path: Path, make: str, expected: str) -> None:
    path = write(tmp_path / "mine.py")
    path.write_text(path.read_text().replace("TASK =", f"{make}\nTASK ="))
    with pytest.raises(UserError) as caught:
        task_hash(config(path), "own")
    assert str(caught.value) == expected


def test_the_hash_covers_what_is_asked_and_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py")
    first = task_hash(config(path), "own")
    assert task_hash(config(path), "own") == first
    path.write_text(path.read_text() + "# a comment changes no pair\n")
    assert task_hash(config(path), "own") == first
    changed = {task_hash(config(path, **{size: 5}), "own") for size in ("n_test_pairs", "n_train_pairs")}
    changed |= {task_hash(config(path, seed=1), "own")}
    changed |= {task_hash(config(write(path, description="other")), "own")}
    changed |= {task_hash(config(write(path, end=")")), "own")}
    assert len({first, *changed}) == 6
    caveat = path.read_text().replace("make)", "make, 'a caveat')")
    path.write_text(caveat)
    assert task_hash(config(path), "own") not in {first, *changed}


def test_pairs_are_made_once_a_process(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py")
    for split in get_args(Split):
        assert asked_pairs(config(path), "own", split) is asked_pairs(config(path), "own", split)


def test_the_config_needs_no_torch() -> None:
    code = "import sys, sparsity_lab.tasks.config, sparsity_lab.tasks.asked; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
