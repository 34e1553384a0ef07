"""Stage `evidence`: the checks of every task's circuit at the main target, a folder a task, made once.

What the checks need besides the circuit (means, text, real source, the model of shuffled weights) is
prepared only if some folder is still to be made.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.config import RunConfig
from sparsity_lab.core.hashing import content_hash, derive_seed
from sparsity_lab.data.python_source import PythonSourceConfig
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.evidence.checks import Surroundings, validate_circuit
from sparsity_lab.evidence.controls import shuffled_weights
from sparsity_lab.evidence.record import save_evidence
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.context import model_on_text, task_pairs
from sparsity_lab.stages.parallel import build_all
from sparsity_lab.tasks.batch import encode_pairs
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.tasks.task import Split

log = logging.getLogger(__name__)

EVIDENCE_VERSION = 2  # raise when the same circuit and config would give other evidence
SOURCE_FILES, SOURCE_PIECES, PIECE_LINES, PIECE_CHARACTERS = 40, 200, 3, 120


def circuit_evidence(
    config: RunConfig, tokens: Path, model_folder: Path, circuit_folders: dict[str, Path], root: Path
) -> dict[str, Path]:
    """The folder of evidence of each task that has a circuit at the main target."""
    name = f"circuit-{config.pruning.target:g}.json"
    circuits = {task: folder / name for task, folder in circuit_folders.items() if (folder / name).exists()}
    abouts = {
        task: {
            "stage": "evidence",
            "version": EVIDENCE_VERSION,
            "circuits": path.parent.name,
            "circuit": name,
            "validation": config.validation.model_dump(mode="json"),
        }
        for task, path in circuits.items()
    }
    # the largest circuit, which takes longest, comes first, so that tasks side by side end together
    order = sorted(circuits, key=lambda task: circuits[task].stat().st_size, reverse=True)
    folders = {task: root / "evidence" / f"{task}-{content_hash(abouts[task])}" for task in order}

    def prepare() -> Callable[[str, Path], None]:
        model, tokenizer, windows, means_n = model_on_text(config, tokens, model_folder)
        around = surroundings(config, model, windows, tokenizer)
        return partial(_write_evidence, config, circuits, model, means_n, around)

    build_all(folders, abouts, prepare)
    return folders


def _write_evidence(
    config: RunConfig,
    circuits: Mapping[str, Path],
    model: Transformer,
    means_n: Tensor,
    around: Surroundings,
    task: str,
    folder: Path,
) -> None:
    started = time.monotonic()
    pairs = [task_pairs(config, task, split) for split in get_args(Split)]
    evidence = validate_circuit(
        circuit=load_circuit(circuits[task]),
        circuit_file=circuits[task].name,
        model=model,
        means_n=means_n,
        task=TASKS[task],
        data=TaskData(*[encode_pairs(TASKS[task], split, around.tokenizer) for split in pairs]),
        test_pairs=pairs[-1],
        surroundings=around,
        finder=config.finder,
        pruning=config.pruning,
        config=config.validation,
    )
    save_evidence(evidence, folder)
    verdicts = ", ".join(f"{check.name} {check.verdict}" for check in evidence.checks)
    log.info("%s: evidence on %s: %s (%.0f s)", config.name, task, verdicts, time.monotonic() - started)


def surroundings(
    config: RunConfig, model: Transformer, windows: Sequence[Tensor], tokenizer: Tokenizer
) -> Surroundings:
    """What the checks of every task need besides its circuit; `windows` of pretraining text."""
    validation = config.validation
    shuffled = None
    if validation.controls:
        other = shuffled_weights(model, validation.seed)
        shuffled = (other, mean_activations(other, windows))
    return Surroundings(
        text_bt=torch.cat(list(windows))[: validation.text_windows],
        real_lines=real_pieces(validation.seed),
        tokenizer=tokenizer,
        shuffled=shuffled,
    )


def real_pieces(seed: int) -> list[str]:
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
    return pieces
