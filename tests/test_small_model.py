"""The model in docs/: README's lines and the notebook run on it, and its circuits are recomputed."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import sparsity_lab
from sparsity_lab import Lab
from sparsity_lab.results.record import write_record
from tests.analysis.made_up import record
from tests.base_install import link_base_install

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "small_model"
PROGRAM = ROOT / "docs" / "make_small_model.py"
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def lab() -> Lab:
    return sparsity_lab.load(FOLDER)


def test_it_is_small_and_has_circuits_and_text(lab: Lab) -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < MOST_BYTES
    assert lab.tasks
    assert lab.folder.has_text


def test_its_circuits_score_as_their_files_say(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "docs" / "recompute.py"
    for task in lab.tasks:
        circuit = lab.circuit(task)
        assert lab.evaluate(circuit).raw_loss == pytest.approx(circuit.test.raw_loss, abs=1e-4)
        file = FOLDER / "circuits" / task / f"circuit-{circuit.target:g}.json"
        monkeypatch.setattr(sys, "argv", [str(script), str(FOLDER), str(file)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script))
        assert not ended.value.code


def test_the_examples_of_the_readme_and_the_python_page_run_with_the_base_install(tmp_path: Path) -> None:
    """No package is there that only an extra brings, and no training is needed."""
    site, runs = link_base_install(tmp_path / "site"), tmp_path / "runs"
    (runs / "some").mkdir(parents=True)
    write_record(record("sparse", 64, 1000, 2.0, {"a task": 5}), runs / "some")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    python = [sys.executable, "-S"]  # without the packages of this environment
    absent = "import transformers"
    done = subprocess.run([*python, "-c", absent], env=environment, capture_output=True, text=True)
    assert "No module named 'transformers'" in done.stderr
    command = [*python, "tests/run_examples.py", str(runs)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def outputs(notebook: nbformat.NotebookNode) -> list[tuple[str, set[str]]]:
    """The source of each code cell, and the kinds of output that it has left."""

    def kinds(cell: nbformat.NotebookNode) -> set[str]:
        return {kind for output in cell.outputs for kind in output.get("data", [output.output_type])}

    return [(cell.source, kinds(cell)) for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_the_notebook_runs_and_leaves_the_same_kinds_of_output(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # of the kernel
    program, kept = runpy.run_path(str(PROGRAM)), nbformat.read(NOTEBOOK, as_version=4)
    assert outputs(program["executed"](NOTEBOOK)) == outputs(kept)


def test_the_notebook_is_kept_with_its_pictures() -> None:
    found = outputs(nbformat.read(NOTEBOOK, as_version=4))
    kinds = [kind for _, left in found for kind in left]
    assert kinds.count("image/png") >= 2
    assert kinds.count("image/svg+xml") == 1
    assert "error" not in kinds
    assert "stderr" not in NOTEBOOK.read_text()
