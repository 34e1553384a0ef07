"""A few of the SIGKILLs of kills.py; its table of a hundred is in tests/README.md."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing() -> None:
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "10", "--seed", "1", "--no-pools"]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "10 kills, seed 1: all records equal" in ended.stdout
