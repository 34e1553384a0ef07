"""Pictures are drawn whatever MPLBACKEND names, and matplotlib's own messages stay off the console."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRAW = """
import os, sys
from sparsity_lab.results.drawing import Figure, mpl
figure = Figure()
figure.subplots().plot([1, 2])
figure.savefig(sys.argv[1])
found = mpl.rcParams._get("backend")
print(found if isinstance(found, str) else "any", os.environ["MPLBACKEND"])
"""


@pytest.mark.parametrize(
    ("backend", "used"),
    [
        ("nonsense", "any"),
        ("module://matplotlib_inline.nowhere", "module://matplotlib_inline.nowhere"),
        ("", "any"),
        ("TkAgg", "tkagg"),  # as for a plot of the user's own
        ("svg", "svg"),
    ],
)
def test_any_backend_of_the_environment(backend: str, used: str, tmp_path: Path) -> None:
    nowhere = {"MPLBACKEND": backend, "HOME": "/proc/nohome", "XDG_CONFIG_HOME": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRAW, tmp_path / "a.png"],
        capture_output=True,
        text=True,
        env=nowhere,
        check=True,
    )
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert done.stderr == ""
    found, _, left = done.stdout.rstrip("\n").partition(" ")
    assert left == backend
    assert found.lower() == used
