"""Every example of docs/python.md runs, in order, on the model that ships in docs/model."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_run import write_run

import sparsity_lab

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """A working directory with the docs and one made-up run."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    write_run(tmp_path / "runs" / "single" / "made-up")
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_every_example_runs(workplace: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)
    mine, frame = names["mine"], names["frame"]
    assert isinstance(mine, sparsity_lab.Circuit)
    assert mine.edges
    assert mine.select.raw_loss <= mine.target
    assert len(frame) > 0  # type: ignore[arg-type]


def test_the_shipped_circuits_score_as_their_files_say() -> None:
    lab = sparsity_lab.load(ROOT / "docs" / "model")
    assert len(lab.tasks) >= 2
    for task in lab.tasks:
        circuit = lab.circuit(task)
        assert lab.evaluate(circuit).raw_loss == pytest.approx(circuit.test.raw_loss, abs=1e-4)
