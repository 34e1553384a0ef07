"""The Python files that the docs show are whole: each is loaded from a file and used as the docs say."""

import random
import re
from pathlib import Path
from typing import Any

import torch
from micro import planted_model, question, small_model

from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData
from sparsity_lab.circuits.finders.file import Config as FileFinder
from sparsity_lab.circuits.finders.file import find
from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.core.config import validate
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.tasks.task import Pair
from sparsity_lab.training.sparsity import make_sparsifier
from sparsity_lab.training.sparsity.file import Config as FileMethod

ROOT = Path(__file__).parents[1]


def block(doc: str, holds: str, folder: Path) -> Path:
    """The one Python block of a document that holds some text, as a file."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / doc).read_text(), re.S)
    (text,) = [text for text in blocks if holds in text]
    path = folder / "shown.py"
    path.write_text(text)
    return path


def test_the_finders_that_are_shown_find_the_planted_circuit(tmp_path: Path) -> None:
    model = planted_model()
    data = TaskData(*(question(32, seed) for seed in (0, 1, 2)))
    evaluator = CircuitEvaluator(model, mean_activations(model, [data.train.tokens_bt]), data, "raw")
    for doc, options in (("README.md", {"noise": 0.1}), ("docs/extending.md", {"pairs": 16})):
        path = block(doc, "def find(", tmp_path)
        config = validate(FileFinder, {"kind": "file", "path": str(path), "options": options})
        kept_n, _ = find(evaluator, config, (0.3,), 0)[0.3]
        assert 3 <= int(kept_n.sum()) < len(kept_n)
        assert evaluator.select_loss(kept_n) <= 0.3


def test_the_sparsity_method_that_is_shown_zeroes_small_weights(tmp_path: Path) -> None:
    path = block("docs/extending.md", "def after_step(", tmp_path)
    values: Any = {"kind": "file", "path": str(path), "options": {"threshold": 0.3}}
    model = small_model()
    make_sparsifier(validate(FileMethod, values), model, 10, 0).after_step(model, 1)
    for weight, _ in model.sparse_weights().values():
        assert torch.all((weight == 0) | (weight.abs() >= 0.3))
    assert any((weight == 0).any() for weight, _ in model.sparse_weights().values())


def test_the_task_that_is_shown_has_pairs_enough(tmp_path: Path) -> None:
    path = block("docs/extending.md", "TASK = Task(", tmp_path)
    config = validate(TasksConfig, {"path": str(path)})
    assert config.asked() == ("if_for",)
    task = config.available()["if_for"]
    pairs = {task.make(random.Random(seed)) for seed in range(200)}
    assert all(isinstance(pair, Pair) and pair.answers[0] != pair.answers[1] for pair in pairs)
    assert len(pairs) > 150
