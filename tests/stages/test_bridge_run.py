"""The program with a reference model, small: bridged and steered, repeated, and sparsified."""

import json
from pathlib import Path

import plain_text
import program
import pytest

from analysis import plot_steering
from sparsity_lab.bridges.bridge import load_bridge
from sparsity_lab.core import metrics
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.results.record import read_record

SHAPE = ("n_layer=1", "d_model=32", "n_ctx=64")
SMALL = [
    "experiment=smoke", "logger=csv", "threads=1", "root=out", *plain_text.overrides(),
    "trainer.tokens=120000", "trainer.validation_windows=16", "trainer.final_windows=16",
    "reference=trained", *(f"reference.model.{value}" for value in SHAPE),
    "reference.trainer.tokens=60000", "reference.trainer.batch_size=8",
    "reference.trainer.learning_rate=0.01",
    "reference.trainer.precision=float32", "tasks.names=[wear]", "tasks.n_train_pairs=64",
    "tasks.n_select_pairs=32", "tasks.n_test_pairs=32", "finder.steps=15", "pruning.target=0.65",
    "pruning.targets=[0.65]",
]  # fmt: skip
BRIDGED = ["bridge=default", "steering=default", "steering.tasks=[wear]"]

pytestmark = pytest.mark.slow


def run(folder: Path, *overrides: str) -> tuple[int, str]:
    """Run the program; returns its exit status and all that was said in `folder`."""
    running = program.start(folder, [*SMALL, *overrides])
    return running.end(), running.said()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bridge")
    status, said = run(folder, *BRIDGED)
    assert status == 0, said
    return folder


def test_a_bridged_run_records_the_bridge_and_steers(folder: Path) -> None:
    (made,) = (folder / "out" / "single").glob("[!.]*")  # beside it lie the points and locks
    record = read_record(made)
    assert made.name.startswith("bridged-d32-l1-n10000-")
    for metric in (*metrics.BRIDGING, metrics.HYBRID_EXCESS, metrics.MIXED_EXCESS, metrics.REFERENCE_KL):
        assert metric.name in record.metrics
    assert record.metrics[metrics.HYBRID_EXCESS.name] < 0.3
    assert record.metrics[metrics.WORST_HYBRID_EXCESS.name] >= record.metrics[metrics.HYBRID_EXCESS.name]
    report = json.loads((made / "model" / "bridge.json").read_text())
    assert report["dense"]["loss"] == pytest.approx(record.metrics[metrics.REFERENCE_LOSS.name], rel=1e-6)
    assert report["sparse"]["kl"] == pytest.approx(record.metrics[metrics.REFERENCE_KL.name], rel=1e-6)
    bridge = load_bridge(made / "model")
    assert bridge.shape.d_sparse == load_model(made / "model").config.d_model
    assert record.metrics[metrics.MODEL_NONZEROS.name] < record.metrics[metrics.WEIGHTS.name]
    (result,) = plot_steering.load(made)
    assert result.task == "wear"
    assert record.stages["steering/wear"] == (made / "steering" / "wear").resolve().name


def test_running_again_makes_nothing_anew(folder: Path) -> None:
    kinds = ("models", "bridges", "circuits", "agreements", "steering")
    paths = [path for kind in kinds for path in (folder / "out" / kind).glob("*/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in paths}
    status, said = run(folder, *BRIDGED)
    assert status == 0, said
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    assert len(before) > 12


def test_sparsifying_starts_at_the_dense_models_weights(folder: Path) -> None:
    same_switches = ["model.activation_fraction=1.0", "trainer.start=reference"]
    status, said = run(folder, *same_switches, "trainer.tokens=512", "sparsity.anneal_until=1.0")
    assert status == 0, said
    (made,) = (folder / "out" / "single").glob("sparsified-*")
    sparse = load_model(made / "model").state_dict()
    dense = load_model(RunFolder(made).reference).state_dict()
    kept = sparse["embedding.weight"] != 0
    one_step = 0.2 * dense["embedding.weight"].std()
    assert (sparse["embedding.weight"] - dense["embedding.weight"])[kept].abs().median() < one_step
    record = read_record(made)
    assert record.metrics[metrics.MODEL_NONZEROS.name] < record.metrics[metrics.WEIGHTS.name]


def test_another_shape_cannot_start_from_it(folder: Path) -> None:
    status, said = run(folder, "trainer.start=reference", "model.d_model=64")
    assert status == 1
    assert "trainer.start: reference: the model in" in said
    assert "Traceback" not in said
