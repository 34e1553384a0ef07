"""Stage `examples`: what pages show of a task's circuits, a folder a task, made from the circuits'."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, load_circuit
from sparsity_lab.config import RunConfig
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.context import model_on_text, task_batch
from sparsity_lab.stages.parallel import build_all
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.viewer.examples import collect_examples
from sparsity_lab.viewer.examples_record import MAX_NODES, save_examples

log = logging.getLogger(__name__)

EXAMPLES_VERSION = 2  # raise when the same circuits would give other examples
TEXT_TOKENS = 8192  # of pretraining text, about


def task_examples(
    config: RunConfig, tokens: Path, model_folder: Path, circuits: dict[str, Path], root: Path
) -> dict[str, Path]:
    """The examples' folder of each task that has a circuit of at most `MAX_NODES` nodes."""
    found = {task: _circuits(folder) for task, folder in circuits.items()}
    found = {task: some for task, some in found.items() if some}
    about = {
        task: {
            "stage": "examples",
            "version": EXAMPLES_VERSION,
            "circuits": circuits[task].name,
            "tokens": tokens.name,
            "validation_windows": config.trainer.validation_windows,
        }
        for task in found
    }
    folders = {task: root / "examples" / f"{task}-{content_hash(about[task])}" for task in found}

    def prepare() -> Callable[[str, Path], None]:
        model, tokenizer, windows, means_n = model_on_text(config, tokens, model_folder)
        text_bt = torch.cat(windows)[: max(1, TEXT_TOKENS // config.model.n_ctx)]
        log.info("%s: examples for the pages of %d tasks ...", config.name, len(found))
        return partial(_write_examples, config, model, means_n, found, text_bt, tokenizer)

    build_all(folders, about, prepare)
    return folders


def _circuits(folder: Path) -> list[Circuit]:
    circuits = [load_circuit(path) for path in folder.glob("circuit-*.json")]
    small = [circuit for circuit in circuits if len(circuit.nodes) <= MAX_NODES]
    return sorted(small, key=lambda circuit: circuit.target)


def _write_examples(
    config: RunConfig,
    model: Transformer,
    means_n: Tensor,
    circuits: Mapping[str, list[Circuit]],
    text_bt: Tensor,
    tokenizer: Tokenizer,
    name: str,
    folder: Path,
) -> None:
    test = task_batch(config, name, "test", tokenizer)
    examples = collect_examples(TASKS[name], model, means_n, circuits[name], test, text_bt, tokenizer)
    save_examples(examples, folder)
