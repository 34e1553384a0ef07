"""Commands as a user types them, for messages and pages."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

ANALYSIS = Path(__file__).parents[2] / "analysis"  # in a clone; a wheel has no programs that draw


def analysis_command(program: str, *arguments: str | Path) -> str | None:
    """Return the shell command for a program of analysis/, or None if this is not a clone.

    Paths are relative to the working directory where that is shorter.
    """
    path = ANALYSIS / program
    if not path.is_file():
        return None
    words = [_from_here(word) if isinstance(word, Path) else word for word in (path, *arguments)]
    return shlex.join(["python", *words])


def run_command(overrides: Sequence[str]) -> str:
    """Return the shell command of a run, or of one job of a saved sweep."""
    sweep = [override for override in overrides if override.startswith("+sweep=")]
    return shlex.join(["python", "-m", "sparsity_lab.run", *overrides, *(["-m"] if sweep else [])])


def evidence_command(run: Path, task: str) -> str:
    """Return the shell command that makes the evidence of one task's circuit of a finished run.

    A name that Hydra's grammar would take apart is left out; the command then makes that of every task.
    """
    one = [f"evidence.tasks=[{task}]"] if re.fullmatch(r"[A-Za-z_][\w-]*", task) else []
    return run_command([f"of={_from_here(run)}", "evidence=default", *one])


def _from_here(path: Path) -> str:
    return min(os.path.relpath(path), str(path), key=len)
