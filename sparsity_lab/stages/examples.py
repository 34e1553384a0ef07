"""Stage `examples`: what pages show of a task's circuits, a folder a task."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from sparsity_lab.circuits.circuit import Circuit, load_circuit
from sparsity_lab.circuits.standalone import MEANS, load_means
from sparsity_lab.config import RunConfig
from sparsity_lab.core.run_folder import circuit_files
from sparsity_lab.core.stage import Stage, content_hash_of
from sparsity_lab.stages.context import ModelContext, task_batch
from sparsity_lab.stages.parallel import build_many
from sparsity_lab.tasks.asked import task_hash
from sparsity_lab.viewer.examples import collect_examples
from sparsity_lab.viewer.examples_record import MAX_NODES, save_examples

log = logging.getLogger(__name__)

EXAMPLES_VERSION = 3  # raise when the same inputs would give other examples
TEXT_TOKENS = 8192  # of pretraining text, about


def task_examples(config: RunConfig, context: ModelContext, circuits: Mapping[str, Path]) -> dict[str, Path]:
    """The examples' folder of each task that has a circuit of at most `MAX_NODES` nodes.

    There are none for circuits that need the whole model's run, since nothing here runs it beside them.
    """
    found = {task: some for task, folder in circuits.items() if (some := _small_circuits(folder))}
    stages = {
        task: Stage(
            room="examples",
            label=task,
            version=EXAMPLES_VERSION,
            inputs=context.inputs
            | {"circuits": content_hash_of(circuits[task]), "task": task_hash(config.tasks, task)},
            make=partial(_write_examples, config, context, some, task, circuits[task] / MEANS),
        )
        for task, some in found.items()
    }

    def prepare() -> None:
        context.load()
        log.info("%s: examples for the pages of %d tasks ...", config.name, len(found))

    return {task: built.path for task, built in build_many(stages, context.root, prepare).items()}


def _small_circuits(folder: Path) -> list[Circuit]:
    circuits = [load_circuit(path) for path in circuit_files(folder)]
    return [one for one in circuits if len(one.nodes) <= MAX_NODES and not one.needs_whole_run]


def _write_examples(
    config: RunConfig,
    context: ModelContext,
    circuits: Sequence[Circuit],
    task: str,
    frozen: Path,
    folder: Path,
) -> None:
    text_bt = torch.cat(context.text)[: max(1, TEXT_TOKENS // context.n_ctx)]
    test = task_batch(config, task, "test", context.tokenizer)
    asked = config.tasks.available()[task]
    frozen_n = load_means(frozen, context.model.config)
    examples = collect_examples(asked, context.model, frozen_n, circuits, test, text_bt, context.tokenizer)
    save_examples(examples, folder)
