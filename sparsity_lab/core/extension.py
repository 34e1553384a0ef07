"""Load the user's own Python files: a finder, a sparsity method or tasks."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from sparsity_lab.core.errors import UserError

_PREFIX = "sparsity_lab_extension_"


def file_hash(path: Path, key: str) -> str:
    """SHA-256 of the file at `path`, in hex; the hash of every stage that uses the file includes it.

    Raises:
        UserError: the file that the config key `key` names cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{key}: {path}: {error.strerror}") from None


def load_file(path: Path, key: str) -> ModuleType:
    """Import the Python file at `path`, once per process and content.

    Raises:
        UserError: the file that the config key `key` names cannot be read, or raises when it is imported.
    """
    name = f"{_PREFIX}{file_hash(path, key)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{key}: {path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{key}: {path}: {type(error).__name__}: {error}") from error
    return module


def loaded_files() -> dict[str, Path]:
    """Map module name → file for every extension that this process has loaded.

    Another process must load a file before it can unpickle objects of the file's classes.
    """
    modules = {name: module.__file__ for name, module in sys.modules.items() if name.startswith(_PREFIX)}
    return {name: Path(file).absolute() for name, file in modules.items() if file is not None}
