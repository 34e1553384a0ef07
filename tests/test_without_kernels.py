"""The small run of `test_smoke`, with kernels and in plain PyTorch: the same within floating-point error."""

import csv
from pathlib import Path

import pytest
from test_smoke import run as run_small
from test_smoke import run_folder

from sparsity_lab.core import metrics
from sparsity_lab.results.record import RunRecord, read_record

SHORTER = [
    "trainer.tokens=20000",
    "tasks.names=[wear]",
    "snapshots.fractions=[1.0]",
    "evidence=none",
]


def run(folder: Path, *overrides: str) -> tuple[RunRecord, list[float]]:
    """The record, and the training loss of each step."""
    run_small(folder, *SHORTER, "trainer.log_every=1", *overrides)
    with (run_folder(folder) / "metrics.csv").open(newline="") as file:
        losses = [row[metrics.TRAIN_LOSS.name] for row in csv.DictReader(file)]
    return read_record(run_folder(folder)), [float(loss) for loss in losses if loss]


def test_a_run_without_kernels_learns_the_same(tmp_path: Path) -> None:
    (with_kernels, losses), (without, plain_losses) = (
        run(tmp_path / switch, f"kernels={switch}") for switch in ("on", "off")
    )
    assert len(losses) == len(plain_losses) == 20_000 // (8 * 64)
    assert plain_losses[:5] == pytest.approx(losses[:5], rel=1e-5)
    assert plain_losses == pytest.approx(losses, rel=0.01)
    assert plain_losses != losses  # other code did compute them
    for metric in (metrics.VALIDATION_LOSS, metrics.KURTOSIS):
        assert without.metrics[metric.name] == pytest.approx(with_kernels.metrics[metric.name], rel=0.02)
    assert without.metrics[metrics.MODEL_NONZEROS.name] == with_kernels.metrics[metrics.MODEL_NONZEROS.name]
    (task,), (other) = with_kernels.tasks, without.tasks[0]
    assert other.status == task.status
    assert [point.target for point in other.curve] == [point.target for point in task.curve]
