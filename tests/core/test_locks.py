"""Locks: a file system without them is named, and the message says what to do."""

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import locked
from sparsity_lab.sweep.job_status import is_worked_on


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    told = f"root: {tmp_path}: this file system has no locks; choose a root on another one"
    with pytest.raises(UserError) as raised, locked(tmp_path / "stage"):
        pass
    assert str(raised.value) == told
    with pytest.raises(UserError) as raised:
        is_worked_on(tmp_path / "job.json")
    assert str(raised.value) == told


def test_where_the_call_is_missing_the_lock_is_a_file_and_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "stage"):
        assert (tmp_path / ".stage.lock").exists()
    assert not list(recwarn)


def test_another_fault_of_the_disk_keeps_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "stage"):
        pass
