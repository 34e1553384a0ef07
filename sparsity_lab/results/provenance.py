"""The code that a run used: git commit, package versions, Python version."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "lightning", "numba", "numpy", "pydantic", "rustbpe", "safetensors", "sparsity_lab", "tiktoken", "torch",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return the record's fields git_commit, git_dirty, packages and python.

    The git fields are None if the package is not in its own checkout. No environment variable is read.
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
