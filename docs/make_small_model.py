"""Make docs/small_model, the trained model that ships with a clone, and run docs/notebook.ipynb on it.

    python docs/make_small_model.py [KEY=VALUE ...]     train, find circuits, export, run the notebook
    python docs/make_small_model.py --notebook          run the notebook on the model that is there

It takes about five minutes on two cores. The given values are added to OVERRIDES. The text is generated, so
that the export holds no one else's source. The vocabulary is small, and there is no bigram table, so that the
files stay small.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from sparsity_lab.core.files import write_text
from sparsity_lab.export import export

ROOT = Path(__file__).parents[1]
MODEL, NOTEBOOK = ROOT / "docs" / "small_model", ROOT / "docs" / "notebook.ipynb"
RUNS = ROOT / "runs" / "small_model"
OVERRIDES = [
    "experiment=smoke",
    "sweep_name=small_model",
    "logger=csv",
    "corpus.real_fraction=0",
    "tokenizer.vocab_size=800",
    "model.bigram=none",
    "tasks.names=[while_return_true,lambda_func]",
    "tasks.n_select_pairs=32",
    "tasks.n_test_pairs=32",
    "pruning.targets=[0.15]",
    "evidence=none",
]
WINDOWS = 64  # of validation text, from which a page takes its examples
TIMEOUT = 600  # seconds for one cell


def make(overrides: Sequence[str]) -> None:
    """Train the model, find its circuits, and write the export, replacing an older one."""
    command = [sys.executable, "-m", "sparsity_lab.run", *OVERRIDES, *overrides]
    subprocess.run(command, cwd=ROOT, check=True)
    newest = max(RUNS.glob("*/record.json"), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(MODEL, ignore_errors=True)
    export(newest.parent, MODEL, text=WINDOWS)


def executed(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """Run every cell of a notebook in its own folder, and return it with its outputs.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.clear()
    resources = {"metadata": {"path": str(path.parent)}}
    return NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", record_timing=False, resources=resources
    ).execute()


def main(arguments: Sequence[str]) -> None:
    """Run the program."""
    if list(arguments) != ["--notebook"]:
        make(arguments)
    write_text(NOTEBOOK, nbformat.writes(executed()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
