"""How many processors this process may use, and how OpenMP's threads wait for work on them."""

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

WAIT_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
SPIN_COUNT = 1000  # docs/speed_log.md compares others


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make GNU OpenMP's threads, which torch uses, spin only briefly before they sleep.

    By default a thread without work spins for milliseconds. On cores that other programs use as well, it
    takes their time and that of the thread it is waiting for. OpenMP reads its variables when it is loaded,
    so call this before torch is imported. Nothing changes if the user has set any of WAIT_VARIABLES.
    """
    if not any(name in environment for name in WAIT_VARIABLES):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def processors(root: Path = Path("/")) -> int:
    """Return the number of cores this process may use, by its affinity and its control group's quota.

    A quota of one and a half cores counts as two. `root` is where /proc and /sys are found.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limits, in cores, of this process's control group and of the groups that contain it."""
    for group in _lines(root / "proc/self/cgroup"):
        _, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        place = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        below = Path(path.lstrip("/"))
        # inside a container the path may be the host's; then only the top folder exists
        for folder in (place / below, *(place / parent for parent in below.parents)):
            words = " ".join(
                _lines(folder / "cpu.max")
                or [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
            ).split()
            # `max` (version 2) and -1 (version 1) mean no limit
            if len(words) == 2 and words[0].isdecimal() and int(words[1]):
                yield int(words[0]) / int(words[1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
