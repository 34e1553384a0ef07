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
