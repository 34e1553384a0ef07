"""Folders built side by side: the same bits on any number of cores, one log, one failure for all."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.core.signals import Interrupted
from sparsity_lab.core.stage import ABOUT, Stage
from sparsity_lab.model.dispatch import kernels_are_on, plain_operations
from sparsity_lab.stages.parallel import build_many
from sparsity_lab.tasks.asked import asked_pairs
from sparsity_lab.tasks.config import TasksConfig

NAMES = ("a", "b", "c", "d")
Make = Callable[[str, Path], None]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def stages(make: Make) -> dict[str, Stage]:
    return {name: Stage("tests", name, 1, {}, partial(make, name)) for name in NAMES}


def built(root: Path, make: Make) -> dict[str, Path]:
    return {name: found.path for name, found in build_many(stages(make), root).items()}


def fill(name: str, folder: Path) -> None:
    logging.getLogger("somewhere").info("%s by %d threads", name, torch.get_num_threads())
    (folder / "process").write_text(str(os.getpid()))
    (folder / "name").write_text(name)


def fail(started: Path, name: str, folder: Path) -> None:
    (started / name).touch()
    if name == "a":
        raise UserError("a: no")
    time.sleep(60)


def die(name: str, folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(started: Path, name: str, folder: Path) -> None:
    (started / name).write_text(str(os.getpid()))
    time.sleep(60)


def sleep_by_two(folder: Path) -> None:
    """What the process that is killed does."""
    torch.set_num_threads(2)
    built(folder, partial(sleep, folder / "started"))


def test_each_folder_is_made_by_one_thread_and_what_it_says_is_heard(
    threads: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folders = built(tmp_path, fill)
    assert [(folder / "name").read_text() for folder in folders.values()] == list(NAMES)
    assert sorted(caplog.messages) == [f"{name} by 1 threads" for name in NAMES]
    processes = {int((folder / "process").read_text()) for folder in folders.values()}
    assert (os.getpid() in processes) == (threads == 1)


def tell_switch(name: str, folder: Path) -> None:
    (folder / "name").write_text(f"{os.getpid()} {kernels_are_on()}")


def test_a_worker_has_kernels_where_its_parent_has(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for number, on in enumerate((True, False, True)):  # all of one server of processes
            with nullcontext() if on else plain_operations():
                folders = built(tmp_path / str(number), tell_switch)
            told = [(folder / "name").read_text().split() for folder in folders.values()]
            assert {switch for _, switch in told} == {str(on)}
            assert str(os.getpid()) not in {process for process, _ in told}
    finally:
        torch.set_num_threads(before)


def test_nothing_is_prepared_when_all_is_there_and_damage_is_told(threads: int, tmp_path: Path) -> None:
    prepared: list[str] = []
    first = build_many(stages(fill), tmp_path, lambda: prepared.append("once"))
    assert [found.is_new for found in first.values()] == [True] * len(NAMES)
    again = build_many(stages(fill), tmp_path, lambda: prepared.append("twice"))
    assert again == {name: (found.path, False) for name, found in first.items()}
    assert list(again) == list(NAMES)
    (again["b"].path / "name").write_text("x")
    with pytest.raises(UserError, match="name: damaged"):
        build_many(stages(fill), tmp_path, lambda: prepared.append("thrice"))
    assert prepared == ["once"]


def ask(config: TasksConfig, name: str, folder: Path) -> None:
    (folder / "pairs").write_text(repr(asked_pairs(config, "own", "test")))


def test_a_worker_finds_tasks_outside_the_package(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "from sparsity_lab.tasks.python.with_as import make\n"
        "from sparsity_lab.tasks.task import Task\n"
        "TASK = Task('own', '', make)\n"
    )
    monkeypatch.chdir(tmp_path)
    config = TasksConfig(path=UserPath("own.py"), n_test_pairs=4)
    expected = repr(asked_pairs(config, "own", "test"))
    for folder in built(tmp_path / "out", partial(ask, config)).values():
        assert (folder / "pairs").read_text() == expected


def test_a_failure_ends_the_others_and_keeps_what_is_finished(threads: int, tmp_path: Path) -> None:
    finished = stages(fill)["d"].folder(tmp_path)
    finished.mkdir(parents=True)
    (finished / ABOUT).write_text("{}")
    started = tmp_path / "started"
    started.mkdir()
    before = set(multiprocessing.active_children())  # another test's, which wait for more work
    with pytest.raises(UserError, match="a: no"):
        built(tmp_path, partial(fail, started))
    assert set(multiprocessing.active_children()) <= before
    assert "d" not in {path.name for path in started.iterdir()}


def test_a_failure_leaves_the_processes_of_others_alone(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UserError, match="a: no"):
            built(tmp_path, partial(fail, tmp_path))
        assert other.is_alive()
    finally:
        torch.set_num_threads(before)
        other.kill()
        other.join()


def test_a_process_that_the_system_ends_is_told_of(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UserError, match="threads: 2: the system ended a process"):
            built(tmp_path, die)
    finally:
        torch.set_num_threads(before)


def test_who_is_interrupted_leaves_no_process_behind(tmp_path: Path) -> None:
    before, others = torch.get_num_threads(), set(multiprocessing.active_children())
    torch.set_num_threads(2)
    started = tmp_path / "started"
    started.mkdir()

    def interrupt() -> None:
        while not any(started.iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    def interrupted(number: int, frame: object) -> None:
        raise Interrupted(number)

    old = signal.signal(signal.SIGUSR1, interrupted)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            built(tmp_path, partial(sleep, started))
    finally:
        signal.signal(signal.SIGUSR1, old)
        thread.join()
        torch.set_num_threads(before)
    assert set(multiprocessing.active_children()) <= others


def test_who_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    started = tmp_path / "started"
    started.mkdir()
    code = f"import pathlib, {__name__} as me; me.sleep_by_two(pathlib.Path({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.Popen([sys.executable, "-c", code], env=environment)
    end = time.monotonic() + 120
    while len(pids := [path.read_text() for path in started.iterdir()]) < 2 or "" in pids:
        assert time.monotonic() < end
        assert owner.poll() is None
        time.sleep(0.1)
    owner.kill()
    owner.wait()
    workers, end = [Path("/proc") / pid for pid in pids], time.monotonic() + 10
    while any(path.exists() for path in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(path.exists() for path in workers)
