"""A cluster's request to make room waits for a moment that loses nothing, then goes to who made the job."""

import signal
from collections.abc import Iterator

import pytest

from sparsity_lab.core import signals
from sparsity_lab.core.signals import Interrupted, deferred, received, requeue_if_preempted, take_over


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The requests that reached submitit's place; this process's own signals as before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(signals._State, "received", None)
    monkeypatch.setattr(signals._State, "requeue", None)
    calls: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    yield calls
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_training_ends_its_step_before_the_job_goes_back_into_the_queue(requeued: list[int]) -> None:
    take_over()
    take_over()  # a second run in the same process
    done = []

    def train() -> None:
        with deferred():
            signal.raise_signal(signal.SIGUSR2)
            done.append(received())

    with pytest.raises(Interrupted, match="SIGUSR2"):
        train()
    assert len(done) == 1
    assert done[0] is not None
    assert not requeued
    requeue_if_preempted()
    assert requeued == [signal.SIGUSR2]


def test_outside_of_a_training_it_interrupts_at_once(requeued: list[int]) -> None:
    take_over()
    with pytest.raises(Interrupted, match="SIGUSR2"):
        signal.raise_signal(signal.SIGUSR2)
    requeue_if_preempted()
    assert requeued == [signal.SIGUSR2]


def test_another_signal_puts_nothing_into_the_queue(requeued: list[int]) -> None:
    take_over()
    with pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    requeue_if_preempted()
    assert not requeued
