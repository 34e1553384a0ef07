"""Cores are counted by affinity and quota; OpenMP's threads wait briefly unless the user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab.core import processors as module
from sparsity_lab.core.processors import SPIN_COUNT, WAIT_VARIABLES, processors, wait_briefly

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def machine(root: Path, group: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": group, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8),
        # the limit of a group that contains this one
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "300000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 1"}, 3),
        # a container that sees the host's path
        ("0::/docker/1f\n", {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        (
            "4:memory:/m\n3:cpu,cpuacct:/c\n0::/\n",
            {
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "unreadable"}, 8),
    ],
)
def test_cores_are_counted_by_affinity_and_quota(
    group: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert processors(machine(tmp_path, group, files)) == expected


@pytest.mark.parametrize("name", WAIT_VARIABLES)
def test_the_users_own_choice_stays(name: str) -> None:
    environment = {name: "7"}
    wait_briefly(environment)
    assert environment == {name: "7"}


@pytest.mark.parametrize("door", ["import sparsity_lab, torch", "import benchmarks, torch"])
def test_openmp_reads_the_spin_count_at_every_door(door: str) -> None:
    """GNU OpenMP prints what it has read, when it is asked to."""
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    command = [sys.executable, "-c", door]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch does not use GNU OpenMP here")
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in done.stderr
