"""The example of docs/using.md: an English pronoun task from 40 pairs gives a circuit with evidence."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.results.record import read_record
from sparsity_lab.tasks.asked import pair_counts
from sparsity_lab.tasks.config import TasksConfig

ROOT = Path(__file__).parents[1]


def commands() -> list[list[str]]:
    """The two commands of the section, as they are shown."""
    text = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    (block,) = [part for part in text.split("```") if "docs/pronouns.py" in part and "\n" in part.strip()]
    return [shlex.split(line)[1:] for line in block.strip().splitlines()]


def run(arguments: list[str], folder: Path) -> None:
    arguments = [str(ROOT / part) if part.startswith("docs/") else part for part in arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pairs_that_are_written_are_a_task(tmp_path: Path) -> None:
    write, train = commands()
    run(write, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "pronouns.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert "tasks.path=pronouns.jsonl" in train
    config = validate(TasksConfig, {"path": str(tmp_path / "pronouns.jsonl")}, "tasks")
    assert config.asked() == ("pronouns",)
    assert pair_counts(config, "pronouns") == {"train": 20, "select": 10, "test": 10}


@pytest.mark.slow
def test_two_commands_give_a_circuit_with_evidence(tmp_path: Path) -> None:
    write, train = commands()
    run(write, tmp_path)
    run([*train, "logger=csv", "threads=1"], tmp_path)
    (folder,) = (tmp_path / "runs" / "single").glob("[!.]*")
    record = read_record(folder)
    (task,) = record.tasks
    assert (task.task, task.status) == ("pronouns", "circuit"), task.reason
    assert task.pairs == {"train": 20, "select": 10, "test": 10}
    assert task.shortcuts is not None
    assert {check.name for check in task.evidence} >= {"sufficiency", "necessity", "controls"}
    assert record.metrics[metrics.VALIDATION_ERROR.name] < 0.01
    assert metrics.NGRAM_LOSS[4, ""].name in record.metrics
