"""Stage `evidence`: the checks of the tasks' circuits at the main target, a folder a task.

The model of shuffled weights, which the controls need, is made only if some folder is still to be made.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.circuits.standalone import MEANS, load_means
from sparsity_lab.config import RunConfig
from sparsity_lab.core.extension import file_hash
from sparsity_lab.core.hashing import content_hash, derive_seed
from sparsity_lab.core.run_folder import circuit_file
from sparsity_lab.core.stage import Stage
from sparsity_lab.data.python_source import PythonSourceConfig
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.evidence.checks import SharedInputs, check_circuit
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.controls import shuffled_weights
from sparsity_lab.evidence.record import save_evidence
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.circuits import search_inputs
from sparsity_lab.stages.context import ModelContext, task_batch
from sparsity_lab.stages.parallel import build_many
from sparsity_lab.tasks.asked import asked_pairs, task_hash

log = logging.getLogger(__name__)

EVIDENCE_VERSION = 4  # raise when the same inputs would give other evidence
SOURCE_FILES, SOURCE_PIECES, PIECE_LINES, PIECE_CHARACTERS = 40, 200, 3, 120


def shared_inputs(
    model: Transformer, text: Sequence[Tensor], tokenizer: Tokenizer, config: EvidenceConfig
) -> SharedInputs:
    """Prepare what the checks need besides the circuit, from windows of text (b, t)."""
    shuffled = None
    if config.controls:
        other = shuffled_weights(model, config.seed)
        shuffled = (other, mean_activations(other, text))
    return SharedInputs(
        text_bt=torch.cat(list(text))[: config.text_windows],
        real_lines=real_pieces(config.seed),
        tokenizer=tokenizer,
        shuffled=shuffled,
    )


@dataclass(frozen=True)
class SharedByTasks:
    """Loads what the checks of every task need besides its circuit."""

    context: ModelContext
    config: EvidenceConfig

    @cached_property
    def shared_inputs(self) -> SharedInputs:
        """The text, the real source and the model of shuffled weights."""
        context = self.context
        return shared_inputs(context.model, context.text, context.tokenizer, self.config)

    def load(self) -> None:
        """Load everything, for worker processes."""
        self.context.load()
        _ = self.shared_inputs


def circuit_evidence(
    config: RunConfig, context: ModelContext, circuits: Mapping[str, Path]
) -> dict[str, Path]:
    """The folder of evidence of each asked task that has a circuit at the main target."""
    name = circuit_file(config.pruning.target)
    found = {task: folder / name for task, folder in circuits.items() if (folder / name).exists()}
    wanted = found.keys() if config.evidence.tasks is None else config.evidence.tasks
    if lacking := [task for task in wanted if task not in found]:
        log.warning("evidence.tasks: no circuit of %s at %g nats", ", ".join(lacking), config.pruning.target)
    found = {task: path for task, path in found.items() if task in wanted}
    if not found:
        return {}
    shared = SharedByTasks(context, config.evidence)
    inputs = context.inputs | search_inputs(config) | {"checks": _asked_of_each(config.evidence)}
    inputs["real_lines"] = content_hash(real_pieces(config.evidence.seed))
    stages = {
        task: Stage(
            room="evidence",
            label=task,
            version=EVIDENCE_VERSION,
            inputs=inputs
            | {"circuit": file_hash(path, "circuit"), "file": name, "task": task_hash(config.tasks, task)},
            make=partial(_write_evidence, config, shared, path, task),
        )
        # the largest circuit takes longest and comes first, so that tasks side by side end together
        for task, path in sorted(found.items(), key=lambda item: item[1].stat().st_size, reverse=True)
    }
    return {task: built.path for task, built in build_many(stages, context.root, shared.load).items()}


def _asked_of_each(config: EvidenceConfig) -> dict[str, Any]:
    """All settings that the evidence of one circuit depends on."""
    return {key: value for key, value in config.model_dump(mode="json").items() if key != "tasks"}


def _write_evidence(config: RunConfig, shared: SharedByTasks, circuit: Path, task: str, folder: Path) -> None:
    started = time.monotonic()
    context = shared.context
    evidence = check_circuit(
        circuit=load_circuit(circuit),
        circuit_file=circuit.name,
        model=context.model,
        means_n=load_means(circuit.with_name(MEANS), context.model.config),
        task=config.tasks.available()[task],
        data=TaskData(
            train=task_batch(config, task, "train", context.tokenizer),
            select=task_batch(config, task, "select", context.tokenizer),
            test=task_batch(config, task, "test", context.tokenizer),
        ),
        test_pairs=asked_pairs(config.tasks, task, "test"),
        shared_inputs=shared.shared_inputs,
        finder=config.finder,
        pruning=config.pruning,
        config=config.evidence,
    )
    save_evidence(evidence, folder)
    verdicts = ", ".join(f"{check.name} {check.verdict}" for check in evidence.checks)
    log.info("%s: evidence on %s: %s (%.0f s)", config.name, task, verdicts, time.monotonic() - started)


@lru_cache(maxsize=4)
def real_pieces(seed: int) -> tuple[str, ...]:
    """Pieces of one to three whole lines from the interpreter's own library, to stand before a prompt."""
    rng = random.Random(derive_seed(seed, "real source"))
    pieces = []
    for document in islice(PythonSourceConfig(packages=("python",)).documents(), SOURCE_FILES):
        lines = document.text.splitlines(keepends=True)
        for _ in range(SOURCE_PIECES // SOURCE_FILES):
            start = rng.randrange(max(1, len(lines) - PIECE_LINES))
            piece = "".join(lines[start : start + rng.randint(1, PIECE_LINES)])
            if piece.strip() and piece.endswith("\n") and len(piece) <= PIECE_CHARACTERS:
                pieces.append(piece)
    return tuple(pieces)
