"""Loss over training seconds and the cost of runs, from records, curves and timings."""

import json
from pathlib import Path

import pandas as pd
import pytest
from made_up import record

from analysis.plot_cost import load, losses, main
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import write_record

HEAD = ",".join(
    (metrics.STEP.name, metrics.TOKENS.name, metrics.THROUGHPUT.name, metrics.VALIDATION_LOSS.name)
)
CURVE = f"{HEAD}\n1,100,10,\n20,2000,40,\n25,,,2.5\n40,4000,50,\n50,5000,50,\n50,,,2.0\n"


def write_run(folder: Path, threads: int | None = 2, width: int = 64, curve: str = CURVE) -> None:
    made = record("sparse", width, 1000, 2.0, {"a": 5})
    write_record(
        made.model_copy(update={"config": {"threads": threads, "sparsity": {"kind": "magnitude"}}}), folder
    )
    (folder / "metrics.csv").write_text(curve)
    (folder / "timings.json").write_text(json.dumps({"prepare": 20.0, "train": 1.0, "circuits": 60.0}))


def test_a_validation_stands_at_the_seconds_of_the_last_training_row_before_it(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = losses(tmp_path / "metrics.csv")
    assert found["seconds"].tolist() == [50.0, 100.0]
    assert found[metrics.VALIDATION_LOSS.name].tolist() == [2.5, 2.0]


def test_the_hours_are_of_all_parts_and_threads_and_training_counts_by_its_curve(tmp_path: Path) -> None:
    write_run(tmp_path)
    ((row, _),) = load(tmp_path)
    assert (row["train_seconds"], row["circuits_seconds"], row["other_seconds"]) == (100, 60, 20)
    assert row["core_hours"] == pytest.approx(2 * 180 / 3600)
    write_run(tmp_path, threads=None)
    ((row, _),) = load(tmp_path)
    assert row["core_hours"] is None


def test_the_table_and_the_figure_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width in (64, 128):
        write_run(tmp_path / "runs" / str(width), width=width)
    write_run(tmp_path / "runs" / "untrained", curve=f"{HEAD}\n")
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"cost.png", "cost.svg", "cost.csv"}
    assert pd.read_csv(out / "cost.csv")["d_model"].tolist() == [64, 128]
    assert "together 0.2 core hours" in capsys.readouterr().out
    text = (out / "cost.svg").read_text()
    assert "sparse 128" in text
    assert "untrained" not in text


def test_without_runs_or_with_a_broken_curve_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no finished run with its training's curve" in capsys.readouterr().err
    write_run(tmp_path, curve="step\n1\n")
    with pytest.raises(UserError, match="not a training's metrics"):
        list(load(tmp_path))


def test_runs_on_all_cores_are_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, threads in (("a", None), ("b", 2)):
        write_run(tmp_path / "runs" / name, threads=threads)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 runs do not tell their number of threads, and so no core hours" in shown
    assert "together 0.1 core hours" in shown
    assert main([str(tmp_path / "runs" / "a"), "--out", str(tmp_path / "out")]) == 0
    assert "together" not in capsys.readouterr().out
