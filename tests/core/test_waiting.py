"""Long work is told while it lasts, and no longer; short work is not told."""

import logging
import threading
import time

import pytest

from sparsity_lab.core.waiting import told


def test_long_work_is_told_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with told("making pairs", interval=0.01):
        deadline = time.monotonic() + 20
        while len(caplog.messages) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    said = list(caplog.messages)
    assert len(said) >= 3
    assert all(line.startswith("making pairs: ") for line in said)
    time.sleep(0.1)
    assert caplog.messages == said


def test_short_work_is_not_told_and_an_error_passes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = threading.active_count()
    with pytest.raises(KeyError), told("making pairs"):
        raise KeyError("a")
    assert caplog.messages == []
    assert threading.active_count() == before
