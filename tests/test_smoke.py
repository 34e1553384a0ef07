"""The whole program, small: from any working directory, the same record each time, and nothing done twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab import metrics
from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.results.record import RunRecord, read_record

ROOT = Path(__file__).parents[1]
SMALL = """
experiment=smoke logger=csv threads=1 root=out
corpus.megabytes=1 corpus.real_fraction=0 tokenizer.vocab_size=700
model.n_layer=1 model.d_model=32 model.n_ctx=64 sparsity.nonzeros=20000
trainer.tokens=150000 trainer.batch_size=8 trainer.validation_windows=16 trainer.learning_rate=0.02
tasks.names=[bracket_brace,with_as] tasks.n_train_pairs=64 tasks.n_select_pairs=32 tasks.n_test_pairs=32
pruning.masks.steps=15 pruning.target=0.6 pruning.targets=[0.65]
""".split()


def program(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sparsity_lab.run", *SMALL, *overrides]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the program has run once."""
    folder = tmp_path_factory.mktemp("somewhere")
    done = program(folder)
    assert done.returncode == 0, done.stderr
    return folder


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "out" / "single").iterdir()
    return found


def comparable(record: RunRecord) -> str:
    """All but what depends on the checkout, which someone may be editing."""
    return record.model_copy(update={"git_commit": None, "git_dirty": None}).model_dump_json()


def test_a_run_leaves_a_complete_folder(folder: Path) -> None:
    run = run_folder(folder)
    record = read_record(run)
    for metric in (metrics.VALIDATION_LOSS, metrics.KURTOSIS, metrics.WEIGHTS, metrics.MODEL_NONZEROS):
        assert metric.name in record.metrics
    assert record.metrics[metrics.MODEL_NONZEROS.name] < record.metrics[metrics.WEIGHTS.name]
    assert record.metrics[metrics.TASKS_ASKED.name] == 2
    assert {task.task for task in record.tasks} == {"bracket_brace", "with_as"}
    assert metrics.TRAIN_LOSS.name in (run / "metrics.csv").read_text()
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "record.json",
        "tokens",
        "model",
        "circuits",
    }
    assert (run / "model" / "model.safetensors").exists()
    assert "root: out" in (run / "config.yaml").read_text()
    assert [path.name for path in folder.iterdir()] == ["out"]  # and nothing beside it


def test_every_circuit_of_the_record_can_be_read(folder: Path) -> None:
    run = run_folder(folder)
    solved = [task for task in read_record(run).tasks if task.circuit]
    assert solved, [(task.task, task.status, task.reason) for task in read_record(run).tasks]
    for task in solved:
        assert task.circuit is not None
        circuit = load_circuit(run / task.circuit)
        (point,) = (point for point in task.curve if point.target == circuit.target)
        assert circuit.counts == (point.nodes, point.edges)
        assert circuit.select.calibrated_loss <= circuit.target


def test_running_again_reuses_every_stage_and_another_directory_gives_the_same_record(
    folder: Path, tmp_path: Path
) -> None:
    run = run_folder(folder)
    before = {path: path.stat().st_mtime_ns for path in _stage_files(folder)}
    record = read_record(run)
    again = program(folder)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in _stage_files(folder)} == before
    assert len(before) > 8
    assert comparable(read_record(run)) == comparable(record)

    other = program(tmp_path / "elsewhere")
    assert other.returncode == 0, other.stderr
    assert comparable(read_record(run_folder(tmp_path / "elsewhere"))) == comparable(record)


def test_a_mistake_ends_at_once_with_its_line(tmp_path: Path) -> None:
    done = program(tmp_path, "model.d_model=33")
    assert done.returncode == 1
    assert "model: d_model 33 must be a multiple of d_head 16" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "out" / "corpora").exists()


def _stage_files(folder: Path) -> list[Path]:
    stages = ("corpora", "tokens", "models", "circuits")
    return [
        path for stage in stages for path in sorted((folder / "out" / stage).glob("*/*")) if path.is_file()
    ]
