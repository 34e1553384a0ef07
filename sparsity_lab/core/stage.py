"""Folders that appear whole: built under a temporary name, checked, and renamed into place."""

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import _sync, locked, read_json, write_json

ABOUT = "about.json"
REMEDY = "delete the folder, and it is made again"


def build(folder: Path, about: Mapping[str, Any], make: Callable[[Path], None], resume: bool = False) -> Path:
    """Return the finished `folder`; when it isn't there, `make` it first.

    `make` fills a sibling folder, which is renamed into place when it returns; two processes that want the
    same folder make it once (file lock). With `resume`, what an interrupted `make` left behind is kept for
    the next attempt; otherwise each attempt starts empty. `about` says what made the folder, in `about.json`,
    with the size and checksum of each file, which a finished folder is held to when it is used again.

    Raises:
        UserError: the finished folder has lost a file, or one has changed.
    """
    if (folder / ABOUT).exists():
        return _intact(folder)
    with locked(folder):
        if (folder / ABOUT).exists():
            return _intact(folder)
        if folder.exists():
            raise UserError(f"{folder}: has no {ABOUT}, so it is not what this program made; {REMEDY}")
        partial = partial_of(folder)
        if partial.exists() and not resume:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        try:
            make(partial)
            files = {name: _fingerprint(partial / name, sync=True) for name in _files(partial)}
            write_json(partial / ABOUT, {**about, "files": files})
        except BaseException:
            if not resume:
                shutil.rmtree(partial, ignore_errors=True)  # it may be what fills the disk
            raise
        partial.rename(folder)
        _sync(folder.parent)
    return folder


def partial_of(folder: Path) -> Path:
    """Where `build` makes a folder, until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ABOUT)


def _fingerprint(path: Path, sync: bool = False) -> list[int]:
    """Size and CRC-32."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(1 << 22):
            crc = zlib.crc32(data, crc)
        if sync:
            os.fsync(file.fileno())
        return [file.tell(), crc]


def _intact(folder: Path) -> Path:
    """`folder`, if each file that `about.json` lists is as it was; folders of old versions list none."""
    about = read_json(folder / ABOUT)
    files = about.get("files", {}) if isinstance(about, dict) else None
    if not isinstance(files, dict):
        raise UserError(f"{folder / ABOUT}: not a list of this folder's files; {REMEDY}")
    for name, expected in files.items():
        try:
            found = _fingerprint(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; {REMEDY}") from None
        if found != expected:
            raise UserError(f"{folder / name}: damaged, it is not as it was written; {REMEDY}")
    return folder
