"""The program as a real process that starts at once: forked from a server that has imported everything.

`conftest.py` says what the server imports.
"""

import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

DEADLINE = 900.0  # seconds, on a busy machine; a command that takes longer hangs
CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class World:
    """What is unusual about the process: its environment, a limit of its memory, a clock that jumps."""

    environment: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    jumping_clock: bool = False


@dataclass(frozen=True)
class Program:
    """One command at work in `folder`."""

    folder: Path
    process: ForkServerProcess

    def said(self) -> str:
        """All that it, and those before it in this folder, have said."""
        return (self.folder / "said").read_text()

    def end(self) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        self.process.join(DEADLINE)
        assert self.process.exitcode is not None, f"hangs: {self.said()}"
        return self.process.exitcode

    def once(self, condition: Callable[[], bool]) -> "Program":
        """Wait for a moment of its work."""
        while not condition():
            assert self.process.is_alive(), self.said()
            time.sleep(0.002)
        return self

    def signal(self, number: int) -> int:
        """Send a signal; returns the exit status."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        return self.end()


def start(folder: Path, arguments: Sequence[str], world: World | None = None) -> Program:
    """Start a command in `folder`, as `python -m sparsity_lab.run` would, without its seconds of imports."""
    folder.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=_enter, args=(folder, list(arguments), world or World()))
    process.start()
    return Program(folder, process)


def _enter(folder: Path, arguments: list[str], world: World) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("WANDB_SERVICE", None)  # that of the tests' own process
    os.environ.update(world.environment)
    if world.memory:
        resource.setrlimit(resource.RLIMIT_AS, (world.memory, world.memory))
    if world.jumping_clock:
        rng, true = random.Random(0), time.time
        time.time = lambda: true() + rng.uniform(-1e8, 1e8)
    become(folder, arguments)


def become(folder: Path, arguments: list[str]) -> None:
    """Turn this process into the program, at work in `folder`, where the file `said` keeps what it says."""
    status = 1
    try:
        os.chdir(folder)
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        from sparsity_lab.run import program

        sys.argv = ["sparsity_lab.run", *arguments]
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(status)
