"""The program as a real process that starts at once: forked from a server that has imported everything."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from kills import DEADLINE, POINT, become

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sparsity_lab.run", "sparsity_lab.stages.pipeline"])


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


def start(folder: Path, arguments: Sequence[str] = POINT, world: World | None = None) -> Program:
    """Start a command in `folder`."""
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
