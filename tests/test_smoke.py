"""The whole program, small: from any working directory, the same record each time, and nothing done twice."""

import csv
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import plain_text
import program
import pytest
import torch

import sparsity_lab
from analysis.circuit_page import load_view
from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.standalone import MEANS, load_means
from sparsity_lab.core import metrics
from sparsity_lab.core.files import read_json
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.record import load_evidence
from sparsity_lab.export import export
from sparsity_lab.model.checkpoints import read_card
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.stages.opened import open_folder
from sparsity_lab.stages.scoring import score_file
from sparsity_lab.viewer.page import page

ROOT = Path(__file__).parents[1]
SMALL = [
    *("experiment=smoke", "logger=csv", "threads=1", "root=out", *plain_text.overrides()),
    *("trainer.validation_windows=16", "trainer.final_windows=16"),
    *("tasks.n_train_pairs=64", "tasks.n_select_pairs=32", "tasks.n_test_pairs=32"),
    *("finder.steps=15", "pruning.target=0.6", "pruning.targets=[0.65]", "snapshots.fractions=[0.5,1.0]"),
]


def run(folder: Path, *overrides: str) -> str:
    """Run the program to its end in a forked process; returns all that was said in `folder`."""
    running = program.start(folder, [*SMALL, *overrides])
    assert running.end() == 0, running.said()
    return running.said()


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start the program as a user does."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sparsity_lab.run", *SMALL, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status and all that was said."""
    said, _ = process.communicate()
    return process.returncode, said


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """Two working directories in which the program has run once, at the same time, and what it said."""
    here, elsewhere = (tmp_path_factory.mktemp(name) for name in ("somewhere", "elsewhere"))
    started = start(here)
    said_elsewhere = run(elsewhere)
    status, said = finish(started)
    assert status == 0, said
    return [(here, said), (elsewhere, said_elsewhere)]


@pytest.fixture(scope="module")
def folders(runs: list[tuple[Path, str]]) -> list[Path]:
    return [folder for folder, _ in runs]


@pytest.fixture(scope="module")
def folder(folders: list[Path]) -> Path:
    return folders[0]


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "out" / "single").glob("[!.]*")
    return found


def comparable(record: RunRecord) -> str:
    """All but what depends on the checkout, which someone may be editing."""
    return record.model_copy(update={"git_commit": None, "git_dirty": None}).model_dump_json()


def test_a_run_leaves_a_complete_folder(folder: Path) -> None:
    run = run_folder(folder)
    record = read_record(run)
    assert record.name == run.name
    for metric in (metrics.VALIDATION_LOSS, metrics.KURTOSIS, metrics.WEIGHTS, metrics.MODEL_NONZEROS):
        assert metric.name in record.metrics
    assert record.metrics[metrics.MODEL_NONZEROS.name] < record.metrics[metrics.WEIGHTS.name]
    assert record.metrics[metrics.TASKS_ASKED.name] == 3
    assert {task.task for task in record.tasks} == set(plain_text.CHOICES)
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
    beside = {path.name for path in folder.iterdir()} - {"said"}  # by later tests' runs
    assert beside == {"out"}


def test_the_log_tells_each_thing_once_and_when(runs: list[tuple[Path, str]]) -> None:
    for _, said in runs:
        lines = said.splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in lines), said
        assert len({line[9:] for line in lines}) == len(lines), said
        for part in ("corpus huggingface", "tokenizer bpe", "tokens train", "step ", "wear: ", "record"):
            assert part in said


def test_every_circuit_of_the_record_can_be_read(folder: Path) -> None:
    run = run_folder(folder)
    solved = [task for task in read_record(run).tasks if task.circuit]
    assert solved, [(task.task, task.status, task.reason) for task in read_record(run).tasks]
    for task in solved:
        assert task.circuit is not None
        circuit = load_circuit(run / task.circuit)
        (point,) = (point for point in task.curve if point.target == circuit.target)
        assert circuit.counts == (point.nodes, point.edges)
        assert circuit.select.selection_loss <= circuit.target


def test_circuits_on_the_way_are_found_as_the_final_ones_are(folder: Path) -> None:
    run = run_folder(folder)
    record = read_record(run)
    (half,) = record.snapshots
    assert half.fraction == 0.5
    assert half.step == round(0.5 * (60_000 // (8 * 64)))
    assert half.nonzeros > 0
    assert [task.task for task in half.tasks] == [task.task for task in record.tasks]
    for task in half.tasks:
        found = run / "snapshots" / "0.5" / "circuits" / task.task
        assert (found / "result.json").exists()
        assert found.resolve() != (run / "circuits" / task.task).resolve()
        if task.circuit:
            circuit = load_circuit(run / task.circuit)
            assert circuit.model == f"{(run / 'model').resolve().name}/snapshots/0.5"
    both = {t.task for t in half.tasks if t.circuit} & {t.task for t in record.tasks if t.circuit}
    assert half.shared.keys() == both


def test_every_circuit_can_be_looked_at(folder: Path) -> None:
    run = run_folder(folder)
    for task in read_record(run).tasks:
        assert (run / "examples" / task.task).exists() == bool(task.curve)
        if task.curve:
            view = load_view(run, task.task)
            assert [c["target"] for c in view["examples"]["circuits"]] == [p.target for p in task.curve]
            assert task.task in page(view)


def test_every_circuit_at_the_target_comes_with_evidence(folder: Path) -> None:
    run = run_folder(folder)
    for task in read_record(run).tasks:
        if task.status != "circuit":
            assert task.evidence == ()
            continue
        evidence = load_evidence(run / "evidence" / task.task)
        assert evidence.checks == task.evidence
        circuit = load_circuit(run / "circuits" / task.task / evidence.circuit)
        assert [about.node for about in evidence.nodes] == list(circuit.nodes)
        assert {"sufficiency", "necessity", "minimality", "robustness", "controls", "generalisation"} < {
            check.name for check in evidence.checks
        }


def test_the_benchmark_times_the_circuits_of_the_run(folder: Path, tmp_path: Path) -> None:
    run = run_folder(folder)
    command = [sys.executable, "-m", "benchmarks.circuits", str(run)]
    subprocess.run(
        [*command, "--out", str(tmp_path)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    with (tmp_path / "circuits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = {task.task: task for task in read_record(run).tasks}
    assert [(row["task"], row["target"]) for row in rows] == [(t, n) for t in tasks for n in ("0.6", "0.65")]
    for row in rows:
        task = tasks[row["task"]]
        found = [str(point.edges) for point in task.curve if point.target == float(row["target"])]
        assert (row["status"], [row["edges"]]) == (task.status, found or [""])
        assert float(row["seconds"]) >= 0


def test_another_directory_gives_the_same_record(folders: list[Path]) -> None:
    records = [comparable(read_record(run_folder(folder))) for folder in folders]
    assert records[0] == records[1]


def test_running_again_reuses_every_stage(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in _stage_files(folder)}
    record = read_record(run_folder(folder))
    run(folder)
    assert {path: path.stat().st_mtime_ns for path in _stage_files(folder)} == before
    assert len(before) > 8
    assert comparable(read_record(run_folder(folder))) == comparable(record)


def test_a_finished_run_is_asked_other_tasks_without_training(folder: Path) -> None:
    before = run_folder(folder)
    of = before.relative_to(folder)
    kept = {path: path.read_bytes() for path in before.iterdir() if path.is_file()}
    folders = {path.name for path in (folder / "out").iterdir()}
    solved = next(task.task for task in read_record(before).tasks if task.circuit)
    tasks = f"tasks.names=[{solved},while_return_true]"
    running = program.start(folder, [f"of={of}", "sweep_name=asked", tasks])
    assert running.end() == 0, running.said()
    (made,) = (folder / "out" / "asked").glob("[!.]*-*")
    record, old = read_record(made), read_record(before)
    assert f"the model of {before} is reused" in running.said()
    assert (record.stages["model"], record.stages["tokens"]) == (old.stages["model"], old.stages["tokens"])
    assert [task.task for task in record.tasks] == [solved, "while_return_true"]
    assert record.pruning == old.pruning
    assert record.stages[f"circuits/{solved}"] == old.stages[f"circuits/{solved}"]
    assert {path: path.read_bytes() for path in kept} == kept
    assert {path.name for path in (folder / "out").iterdir()} - folders == {"asked"}
    command = load_view(made, solved)["run"]["command"]
    assert command == f"python -m sparsity_lab.run of={of} sweep_name=asked '{tasks}'"


def test_all_that_is_made_of_a_circuit_freezes_the_rest_as_its_search_did(folder: Path) -> None:
    before = run_folder(folder)
    solved = next(task.task for task in read_record(before).tasks if task.circuit)
    of, tasks = f"of={before.relative_to(folder)}", f"tasks.names=[{solved}]"
    more = ["pruning.ablation=zero", "evidence.pairs=32", "evidence.controls=false"]
    running = program.start(folder, [of, "sweep_name=zero", tasks, *more])
    assert running.end() == 0, running.said()
    (made,) = (folder / "out" / "zero").glob("[!.]*-*")
    circuit, lab = load_circuit(made / "circuits" / solved / "circuit-0.6.json"), sparsity_lab.load(made)
    assert not load_means(made / "circuits" / solved / MEANS, lab.model.config).any()
    assert lab.evaluate(circuit) == circuit.test
    assert lab.means.any()
    (sufficiency,) = (c for c in load_evidence(made / "evidence" / solved).checks if c.name == "sufficiency")
    values = {measured.name: measured.value for measured in sufficiency.values}
    assert values["raw loss"] == pytest.approx(circuit.test.raw_loss, abs=1e-5)


@pytest.mark.slow
def test_a_search_shares_the_model_and_adds_nothing_when_it_is_finished(folder: Path) -> None:
    solved = next(task.task for task in read_record(run_folder(folder)).tasks if task.circuit)
    command = ["+sweep=prune_tuning", "hydra.sweeper.grids=[]", "hydra.sweeper.search.n_trials=2"]
    command += ["hydra.launcher.n_jobs=1", f"tasks.names=[{solved}]", "-m"]
    tuned = folder / "out" / "prune_tuning"
    models = list((folder / "out" / "models").iterdir())
    said = run(folder, *command)
    assert "2 of 2 trials are finished" in said
    assert "2 jobs: 2 finished" in said
    (study,) = read_json(tuned / "best.json")
    assert study["finished"] == 2
    for best in study["best"]:
        record = read_record(tuned / best["run"])
        assert best["objectives"] == {name: record.metrics[name] for name in best["objectives"]}
        assert best["objectives"].keys() == {metrics.GEOMEAN_EDGES.name, metrics.TEST_LOSS.name}
        assert record.config["finder"]["rate"] == best["values"]["finder.rate"]
    assert study["best"]
    trials = sorted(tuned.iterdir())
    run(folder, *command)
    assert sorted(tuned.iterdir()) == trials
    assert list((folder / "out" / "models").iterdir()) == models


def test_a_mistake_ends_at_once_with_its_line(tmp_path: Path) -> None:
    status, said = finish(start(tmp_path, "model.d_model=33"))
    assert status == 1
    assert "model: d_model 33 must be a multiple of d_head 16" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "corpora").exists()


def _stage_files(folder: Path) -> list[Path]:
    stages = ("corpora", "tokens", "models", "circuits", "examples", "evidence")
    return [
        path
        for stage in stages
        for path in sorted((folder / "out" / stage).glob("[!.]*/*"))
        if path.is_file()
    ]


def test_s14_the_circuits_of_a_run_are_recomputed_from_its_export(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = run_folder(folder), tmp_path / "out"
    export(run, out)
    circuits = sorted(out.glob("circuits/*/circuit-*.json"))
    assert [path.relative_to(out) for path in circuits] == sorted(
        path.relative_to(run) for path in run.glob("circuits/*/circuit-*.json")
    )
    assert circuits
    script = ROOT / "docs" / "recompute.py"
    for path in circuits:
        monkeypatch.setattr(sys, "argv", [str(script), str(out), str(path)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(script))
        assert not caught.value.code  # it is 1 if the losses differ by more than 1e-4
    config = read_card(out).config
    means = [load_means(path, config) for path in (out / MEANS, circuits[0].with_name(MEANS))]
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-5)


def test_a_circuit_is_scored_in_its_run_with_the_checks_that_need_text(folder: Path) -> None:
    run = run_folder(folder)
    path = min(run.glob("circuits/*/circuit-0.6.json"))
    circuit = load_circuit(path)
    config = EvidenceConfig(pairs=8, draws=1, binarisation_steps=2, text_windows=2)
    report = score_file(path, open_folder(run), evidence=config)
    assert report.rows[0].scores is not None
    assert report.rows[0].scores.raw_loss == pytest.approx(circuit.test.raw_loss, abs=1e-6)
    left_out = {check.name for check in report.checks if check.verdict == "not_measured"}
    assert left_out <= {"controls", "generalisation"}
