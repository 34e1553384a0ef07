"""Cached stages: a stage is a function of its config and inputs, and its output is a folder.

1. The hash of a stage's room, version and inputs names its folder below the root of all runs.
2. A finished folder is verified and reused, never computed again.
3. A new folder is filled under a temporary name, checksummed in `about.json`, and renamed into place. A file
   lock lets two processes that need the same folder compute it once.
"""

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import locked, read_json, sync, write_json
from sparsity_lab.core.hashing import content_hash

ABOUT = "about.json"
REMEDY = "delete the folder, and it is made again"


@dataclass(frozen=True)
class Stage:
    """Work whose output is a folder.

    `room` is the folder below the root that holds all outputs of this kind, such as "circuits". `label`
    begins the folder's name, for readers. Raise `version` when the same inputs would give another output.
    `inputs` is plain JSON with everything that the output depends on; files on disk enter by content.
    `make` fills an empty folder. With `resume`, it gets the files that an interrupted attempt left.
    """

    room: str
    label: str
    version: int
    inputs: Mapping[str, Any]
    make: Callable[[Path], None]
    resume: bool = False

    def folder(self, root: Path) -> Path:
        """Return the output's folder below `root`."""
        digest = content_hash(self.room, self.version, dict(self.inputs))
        return root / self.room / f"{self.label}-{digest}"


class Built(NamedTuple):
    """A finished folder, and whether this call made it."""

    path: Path
    is_new: bool


def run_stage(stage: Stage, root: Path) -> Built:
    """Return the stage's finished folder; make it first if it is missing.

    `is_new` is false for a process that waited while another made the folder.

    Raises:
        UserError: the finished folder has lost a file, or one has changed.
    """
    folder = stage.folder(root)
    if (folder / ABOUT).exists():
        return Built(intact(folder), False)
    with locked(folder):
        if (folder / ABOUT).exists():
            return Built(intact(folder), False)
        if folder.exists():
            raise UserError(f"{folder}: has no {ABOUT}, so it is not what this program made; {REMEDY}")
        _make(stage, folder)
    return Built(folder, True)


def partial_of(folder: Path) -> Path:
    """Return the temporary path under which a folder is made."""
    return folder.with_name(f".{folder.name}.partial")


def content_hash_of(folder: Path) -> str:
    """Hash the content of a finished folder: the name, size and checksum of each file.

    Raises:
        UserError: the folder is not a stage's output.
    """
    return content_hash(_listed(folder))


def _make(stage: Stage, folder: Path) -> None:
    partial = partial_of(folder)
    if partial.exists() and not stage.resume:
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    try:
        stage.make(partial)
        files = {name: checksum(partial / name, on_disk=True) for name in _files(partial)}
        about = {"stage": stage.room, "version": stage.version, "inputs": dict(stage.inputs)}
        write_json(partial / ABOUT, {**about, "files": files})
    except BaseException:
        if not stage.resume:
            shutil.rmtree(partial, ignore_errors=True)  # it may be the reason that the disk is full
        raise
    partial.rename(folder)
    sync(folder.parent)


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ABOUT)


def checksum(path: Path, on_disk: bool = False) -> list[int]:
    """Return size and CRC-32. With `on_disk`, first flush the content to disk."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(1 << 22):
            crc = zlib.crc32(data, crc)
        if on_disk:
            os.fsync(file.fileno())
        return [file.tell(), crc]


def _listed(folder: Path) -> dict[str, Any]:
    about = read_json(folder / ABOUT)
    files = about.get("files", {}) if isinstance(about, dict) else None
    if not isinstance(files, dict):
        raise UserError(f"{folder / ABOUT}: not a list of this folder's files; {REMEDY}")
    return files


def intact(folder: Path) -> Path:
    """Return `folder` if every file listed in `about.json` is unchanged; old versions list none.

    Raises:
        UserError: the folder is not a stage's output, has lost a file, or one has changed.
    """
    for name, expected in _listed(folder).items():
        try:
            found = checksum(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; {REMEDY}") from None
        if found != expected:
            raise UserError(f"{folder / name}: damaged, it is not as it was written; {REMEDY}")
    return folder
