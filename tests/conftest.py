"""What all tests share: kernels as a run has them; hypothesis's examples; the order in which tests run."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

# torch is not imported above this line: the package decides first how OpenMP's threads wait
from sparsity_lab.kernels.install import use_kernels

settings.register_profile("same", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("same")
use_kernels()
# One process of these imports serves all that are forked for tests, the package's own workers included.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["sparsity_lab.run", "sparsity_lab.stages.pipeline"]
)

# The longest first, so that no process is left with one at the end.
LONGEST = (
    "tests/cluster/test_slurm.py",
    "tests/survival/test_faults.py",
    "tests/survival/test_kills.py",
    "tests/survival/test_study.py",
    "tests/stages/test_bridge_run.py",
    "tests/test_smoke.py",
    "tests/training/test_ranks.py",
    "tests/test_without_kernels.py",
    "tests/stages/test_imported.py",
)
# Several processes share the tests of these files. All other files are run by one process each, so that what
# their tests share is made once.
SPREAD = ("tests/survival/test_faults.py", "tests/training/test_ranks.py", "tests/stages/test_imported.py")


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> tuple[bool, int]:
        file = file_of(item.nodeid)
        return item.get_closest_marker("slow") is None, LONGEST.index(file) if file in LONGEST else len(
            LONGEST
        )

    slow_files = {file_of(item.nodeid) for item in items if not place(item)[0]} - set(SPREAD)
    # the quick tests of a file that stays together come with its slow ones
    items.sort(key=lambda item: (place(item)[0] and file_of(item.nodeid) not in slow_files, place(item)[1]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one process, and each test of the files in SPREAD, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if file_of(nodeid) in SPREAD else file_of(nodeid)

        def remove_node(self, node: Any) -> str | None:
            """Never repeat the test that has ended its process: it would end every process in turn."""
            units = self.assigned_work.get(node, {}).values()
            crashed = next((name for unit in units for name, done in unit.items() if not done), None)
            for unit in units:
                if crashed in unit:
                    unit[crashed] = True
            super().remove_node(node)
            return crashed

    if config.getoption("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that makes a folder once for all processes of this test run. Nobody may change it."""

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        place = tmp_path_factory.getbasetemp()
        place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
        made, done = place / name, place / f"{name}.done"
        with FileLock(place / f"{name}.lock"):
            if not done.exists():
                make(made)
                done.touch()
        return made

    return folder


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """A run in this process flushes denormals to zero; hypothesis's floats need them in later tests."""
    yield
    import torch

    torch.set_flush_denormal(False)
