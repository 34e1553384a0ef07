"""Stage `evidence`: the checks of every task's circuit at the main target, a folder a task, made once.

What the checks need besides the circuit (means, text, real source, the model of shuffled weights) is
prepared only if some folder is still to be made.
"""

import logging
import random
import time
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from sparsity_lab.base import build, content_hash, derive_seed
from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.circuits.checks.controls import shuffled_weights
from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.evidence import save_evidence
from sparsity_lab.circuits.pruning import TaskData
from sparsity_lab.circuits.task import Split, encode_pairs
from sparsity_lab.circuits.tasks import TASKS
from sparsity_lab.circuits.validation import Surroundings, validate_circuit
from sparsity_lab.config import RunConfig
from sparsity_lab.data.python_source import PythonSourceConfig
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stage_inputs import TOKENIZER, task_pairs, validation_windows

log = logging.getLogger(__name__)

EVIDENCE_VERSION = 1  # raise when the same circuit and config would give other evidence
SOURCE_FILES, SOURCE_PIECES, PIECE_LINES, PIECE_CHARACTERS = 40, 200, 3, 120


def circuit_evidence(
    config: RunConfig, tokens: Path, model_folder: Path, circuit_folders: dict[str, Path], root: Path
) -> dict[str, Path]:
    """The folder of evidence of each task that has a circuit at the main target."""
    prepared = _Prepared(config, tokens, model_folder)
    name = f"circuit-{config.pruning.target:g}.json"
    folders = {}
    for task, circuits in circuit_folders.items():
        if not (circuits / name).exists():
            continue
        about = {
            "stage": "evidence",
            "version": EVIDENCE_VERSION,
            "circuits": circuits.name,
            "circuit": name,
            "validation": config.validation.model_dump(mode="json"),
        }
        make = partial(_write_evidence, config, task, circuits / name, prepared)
        folders[task] = build(root / "evidence" / f"{task}-{content_hash(about)}", about, make)
    return folders


def _write_evidence(config: RunConfig, task: str, path: Path, prepared: "_Prepared", folder: Path) -> None:
    prepared.surroundings  # noqa: B018  (so that the seconds told are this task's)
    started = time.monotonic()
    pairs = [task_pairs(config, task, split) for split in get_args(Split)]
    tokenizer = prepared.surroundings.tokenizer
    evidence = validate_circuit(
        circuit=load_circuit(path),
        circuit_file=path.name,
        model=prepared.model,
        means_n=prepared.means(prepared.model),
        task=TASKS[task],
        data=TaskData(*[encode_pairs(TASKS[task], split, tokenizer) for split in pairs]),
        test_pairs=pairs[-1],
        surroundings=prepared.surroundings,
        pruning=config.pruning,
        config=config.validation,
    )
    save_evidence(evidence, folder)
    verdicts = ", ".join(f"{check.name} {check.verdict}" for check in evidence.checks)
    log.info("%s: evidence on %s: %s (%.0f s)", config.name, task, verdicts, time.monotonic() - started)


class _Prepared:
    """The model and all that does not depend on the task, made at first use."""

    def __init__(self, config: RunConfig, tokens: Path, model_folder: Path) -> None:
        self.config, self.tokens, self.model_folder = config, tokens, model_folder
        self._means: dict[int, Tensor] = {}

    @cached_property
    def model(self) -> Transformer:
        return load_model(self.model_folder)

    @cached_property
    def windows(self) -> list[Tensor]:
        """Validation windows without their last token."""
        return [windows[:, :-1] for windows in validation_windows(self.config, self.tokens)]

    def means(self, model: Transformer) -> Tensor:
        """Mean activations over the validation windows, as the circuits' stage takes them."""
        if id(model) not in self._means:
            self._means[id(model)] = mean_activations(model, self.windows)
        return self._means[id(model)]

    @cached_property
    def surroundings(self) -> Surroundings:
        validation = self.config.validation
        shuffled = shuffled_weights(self.model, validation.seed) if validation.controls else None
        return Surroundings(
            text_bt=torch.cat(self.windows)[: validation.text_windows],
            real_lines=real_pieces(validation.seed),
            tokenizer=load_tokenizer(self.tokens / TOKENIZER),
            shuffled=None if shuffled is None else (shuffled, self.means(shuffled)),
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
