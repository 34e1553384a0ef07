"""On what code a run ran: git commit, package versions, Python version."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "lightning", "numba", "numpy", "pydantic", "rustbpe", "safetensors", "sparsity_lab", "tiktoken", "torch",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """The fields of a record that say on what code it ran: git_commit, git_dirty, packages, python.

    Git's are None when the package does not lie in a checkout of its own. No environment variable is read.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", "run.py") else None
    status = _git("status", "--porcelain") if commit else None
    return {
        "git_commit": commit,
        "git_dirty": None if status is None else bool(status),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parents[1]), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
