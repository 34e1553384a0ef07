"""What numba has compiled and kept is seen, and what it has not is not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
from pathlib import Path
import sparsity_lab.kernels.cpu.projection as module
from sparsity_lab.kernels.compiled import compiled_before

print(compiled_before())
kernel = next(v for v in vars(module).values() if type(v).__name__ == "CPUDispatcher")
folder = Path(kernel.stats.cache_path)  # where numba will keep it
folder.mkdir(parents=True, exist_ok=True)
(folder / "kernel.nbi").touch()
print(compiled_before())
"""


def test_a_kept_kernel_is_seen(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


NOWHERE = """
import logging, os, sys
from numba.core import caching
import numba

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]  # no other place can be written
from sparsity_lab.kernels.cpu import projection
from pathlib import Path

kernel = next(v for v in vars(projection).values() if type(v).__name__ == "CPUDispatcher")
print(Path(kernel.stats.cache_path).is_relative_to(os.environ["NUMBA_CACHE_DIR"]))
print(os.environ["NUMBA_CACHE_DIR"])
"""


def test_kernels_compile_where_no_cache_can_be_written(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", NOWHERE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    told, inside, folder = done.stdout.splitlines()
    assert told.endswith("to keep them, set NUMBA_CACHE_DIR to a folder")
    assert inside == "True"
    assert Path(folder).parent == tmp_path
    assert list(tmp_path.iterdir()) == []  # it is removed with the process
