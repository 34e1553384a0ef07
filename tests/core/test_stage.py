"""A stage's folder: named by its inputs, whole or absent, made once, and held to what was written."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.stage import ABOUT, Stage, content_hash_of, run_stage

Make = Callable[[Path], None]


def stage(make: Make, resume: bool = False, **inputs: Any) -> Stage:
    return Stage("tests", "name", 1, inputs, make, resume)


def write_x(folder: Path) -> None:
    (folder / "x").write_text("x")


def _write(name: str, text: str, folder: Path) -> None:
    (folder / name).write_text(text)


def test_the_folders_name_depends_on_room_version_and_inputs_not_on_the_rest(tmp_path: Path) -> None:
    one = Stage("tests", "name", 1, {"a": 1}, write_x)
    assert one.folder(tmp_path).parent == tmp_path / "tests"
    assert one.folder(tmp_path).name.startswith("name-")
    assert one.folder(tmp_path) == Stage("tests", "name", 1, {"a": 1}, print, True).folder(tmp_path)
    others = [
        Stage("tests", "name", 2, {"a": 1}, write_x),
        Stage("tests", "name", 1, {"a": 2}, write_x),
        Stage("other", "name", 1, {"a": 1}, write_x),
    ]
    assert len({other.folder(tmp_path).name for other in [one, *others]}) == 4


def test_a_file_that_changed_or_went_in_a_finished_folder_is_named(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "x").write_text("whole")

    folder = run_stage(stage(make), tmp_path).path
    for change, expected in (
        (lambda path: path.write_text("whale"), r"inner/x: damaged, .*; delete the folder, and it is made"),
        (lambda path: path.write_text("whol"), r"inner/x: damaged"),
        (lambda path: path.unlink(), r"inner/x: No such file or directory; delete the folder"),
        (lambda path: (folder / ABOUT).write_text("{"), r"about\.json: not readable as JSON"),
        (lambda path: (folder / ABOUT).write_text("[]"), r"about\.json: not a list of this folder's files"),
        (lambda path: (folder / ABOUT).unlink(), r"has no about\.json"),
    ):
        change(folder / "inner" / "x")
        with pytest.raises(UserError, match=expected):
            run_stage(stage(make), tmp_path)


def test_a_finished_folder_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        write_x(folder)

    folder, is_new = run_stage(stage(make, a=1), tmp_path)
    assert is_new
    assert run_stage(stage(make, a=1), tmp_path) == (folder, False)
    assert len(made) == 1
    assert made[0] != folder
    assert sorted(p.name for p in folder.iterdir()) == [ABOUT, "x"]
    expected = {"stage": "tests", "version": 1, "inputs": {"a": 1}, "files": {"x": [1, 0x8CDC1683]}}
    assert read_json(folder / ABOUT) == expected


@pytest.mark.parametrize("resume", [False, True])
def test_a_failing_make_leaves_no_folder_and_only_resume_keeps_the_rest(tmp_path: Path, resume: bool) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    seen: list[str] = []

    def finish(folder: Path) -> None:
        seen.extend(path.name for path in folder.iterdir())

    folder = stage(finish).folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(interrupted, resume), tmp_path)
    assert not folder.exists()
    assert run_stage(stage(finish, resume), tmp_path) == (folder, True)
    assert seen == (["half"] if resume else [])


def test_the_content_hash_depends_on_names_and_content_alone(tmp_path: Path) -> None:
    files = [("x", "a"), ("x", "a"), ("x", "b"), ("y", "a")]
    folders = [
        run_stage(stage(partial(_write, name, text), number=i), tmp_path).path
        for i, (name, text) in enumerate(files)
    ]
    hashes = [content_hash_of(folder) for folder in folders]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    with pytest.raises(UserError, match=r"about\.json: no such file"):
        content_hash_of(tmp_path)


def _make_slowly(root: Path, barrier: Any, results: Any) -> None:
    def make(partial: Path) -> None:
        with (root / "made").open("a") as file:
            file.write("x")
        for index in range(200):
            (partial / str(index)).write_text("x")

    barrier.wait()
    folder, is_new = run_stage(stage(make), root)
    results.put((len(list(folder.iterdir())), is_new))


def test_of_two_processes_one_makes_the_folder_and_the_other_knows_that_it_did_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=_make_slowly, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in both:
        process.start()
    found = sorted(results.get(timeout=120) for _ in both)
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert found == [(201, False), (201, True)]
    assert (tmp_path / "made").read_text() == "x"
