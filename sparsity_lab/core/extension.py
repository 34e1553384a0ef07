"""Python files from outside the package: a finder, a sparsity method or tasks of the user's own.

A config holds the hash of such a file's content beside its path (`with_content`), so that the config, the
record and every stage's hash depend on the content. A file that changes during a run is refused
(`unchanged`).
"""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath

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


def content_hash_at(path: Path, key: str) -> str:
    """SHA-256, in hex, of the file at `path`, or of all Python and JSON Lines files of the folder there.

    Raises:
        UserError: a file that the config key `key` names cannot be read.
    """
    if not path.is_dir():
        return file_hash(path, key)
    found = sorted(file for file in path.iterdir() if file.suffix in (".py", ".jsonl"))
    files = {file.name: file_hash(file, key) for file in found}
    return hashlib.sha256(repr(files).encode()).hexdigest()


def with_content(values: Any, section: str) -> Any:
    """The plain values of a config section with `sha256` filled in, if its `path` names a file.

    Raises:
        UserError: the file cannot be read, or `sha256` is given and is not that of the file.
    """
    if not isinstance(values, dict) or not isinstance(values.get("path"), str | UserPath):
        return values
    try:
        path = UserPath(values["path"])
    except ValueError:
        return values  # the field's own check tells what is allowed
    found = content_hash_at(path.absolute, f"{section}.path")
    if values.get("sha256") not in (None, found):
        raise UserError(
            f"{section}.sha256: {values['sha256']}: {values['path']} has {found}; allowed: null, or that"
        )
    return values | {"sha256": found}


def unchanged(path: UserPath, sha256: str | None, key: str) -> Path:
    """The place of `path`, if its content still has the hash of the config.

    Raises:
        UserError: it has changed since the config was read.
    """
    place = path.absolute
    if content_hash_at(place, key) != sha256:
        raise UserError(
            f"{key}: {path}: changed since this run began; to run the new file, repeat the command"
        )
    return place


def load_file(path: Path, key: str) -> ModuleType:
    """Import the Python file at `path`, once per process and content.

    Raises:
        UserError: the file that the config key `key` names cannot be read, raises when it is imported, or
            imports a module that lies beside it: only the file's own content is hashed.
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
        if beside := _modules_beside(module, path):
            raise UserError(f"{key}: {path}: imports {', '.join(beside)}; it must be a single file")
    except UserError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{key}: {path}: {type(error).__name__}: {error}") from error
    return module


def _modules_beside(module: ModuleType, path: Path) -> list[str]:
    """The modules of the file's own folder that the file at `path` uses, by name."""
    owners = {getattr(value, "__module__", None) for value in vars(module).values()}
    used = {value for value in vars(module).values() if isinstance(value, ModuleType)}
    used |= {sys.modules[owner] for owner in owners if isinstance(owner, str) and owner in sys.modules}
    folder = path.resolve().parent
    files = {other.__name__: getattr(other, "__file__", None) for other in used if other is not module}
    return sorted(
        name
        for name, file in files.items()
        if file and not name.startswith("sparsity_lab") and folder in Path(file).resolve().parents
    )


def loaded_files() -> dict[str, Path]:
    """Map module name → file for every extension that this process has loaded.

    Another process must load a file before it can unpickle objects of the file's classes.
    """
    modules = {name: module.__file__ for name, module in sys.modules.items() if name.startswith(_PREFIX)}
    return {name: Path(file).absolute() for name, file in modules.items() if file is not None}
