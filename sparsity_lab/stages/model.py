"""Stage `models` (or `bridges`): a trained model's folder: tensors, training curves, snapshots.

The folder is shared by all runs below the same root that train the same model.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparsity_lab.bridges.objective import BridgeObjective
from sparsity_lab.config import RunConfig
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.core.stage import Built, Stage, content_hash_of, partial_of, run_stage
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.data.packed import TOKENIZER, bigram_counts
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.checkpoints import CARD, save_model
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.model.transformer import Transformer, bigram_log_probabilities
from sparsity_lab.stages.reference import bridge_objective, finish_bridge, reference_inputs, start_from
from sparsity_lab.training.fit import CHECKPOINTS, fit, precision
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.objective import NextToken, Objective
from sparsity_lab.training.sparsity import make_sparsifier

# Raise when the same config would give another model. Rounding does not count: it differs between machines
MODEL_VERSION = 6
# the model does not depend on them; the weights that `start` names are an input of their own
NOT_INPUTS = {"log_every", "checkpoint_every", "workers", "pin_memory", "start", "final_windows"}


def trained_model(
    config: RunConfig,
    tokens: Path,
    root: Path,
    loggers: Callable[[Path], list[Any]],
    reference: Path | None = None,
) -> Built:
    """The trained model's folder, and whether it was trained just now.

    An interrupted training is resumed from its last checkpoint. `loggers` makes those of a folder.
    `reference` is the reference model's folder, where the training starts from it or bridges to it.
    """

    def make(folder: Path) -> None:
        if (folder / CARD).exists():
            return  # interrupted when all was done but its checkpoints' removal
        module, data, final = _train(config, tokens, reference, folder, loggers(folder))
        if broken := [name for name, value in final.items() if not math.isfinite(value)]:
            raise UserError(f"training: {', '.join(broken)} is not finite: lower trainer.learning_rate")
        if isinstance(module.objective, BridgeObjective):
            finish_bridge(module.objective, module.model, data.val_dataloader(), config.seed, folder)
        save_model(module.model, folder)  # its card, written last, says that nothing is left to do

    def make_and_clear(folder: Path) -> None:
        make(folder)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

    return run_stage(_stage(config, tokens, reference, make_and_clear), root)


def help_train(config: RunConfig, tokens: Path, root: Path) -> None:
    """Train the model of `trained_model` as one of the other ranks that srun or torchrun has started.

    Raises:
        UserError: the model needs a reference model, which the first rank alone knows.
    """
    if config.bridge is not None or config.trainer.start == "reference":
        raise UserError("trainer: with a reference model, srun and torchrun may start one process only")
    folder = _stage(config, tokens, None, lambda folder: None).folder(root)
    if not folder.exists():
        _train(config, tokens, None, partial_of(folder), [])


def _stage(config: RunConfig, tokens: Path, reference: Path | None, make: Callable[[Path], None]) -> Stage:
    inputs: dict[str, Any] = {
        "tokens": content_hash_of(tokens),
        "model": config.model.model_dump(mode="json"),
        "sparsity": config.sparsity.identity(),
        "trainer": config.trainer.model_dump(mode="json", exclude=NOT_INPUTS),
        "precision": precision(config.trainer.precision),
        "kernels": kernels_are_on(),
        "seed": config.seed,
        "snapshots": config.snapshots.before_the_end,  # the folder holds the snapshots too
    }
    room = "models" if config.bridge is None else "bridges"
    inputs |= reference_inputs(config, reference)
    return Stage(room, config.name, MODEL_VERSION, inputs, make, resume=True)


def _train(
    config: RunConfig, tokens: Path, dense: Path | None, folder: Path, loggers: list[Any]
) -> tuple[LanguageModule, TokenDataModule, dict[str, float]]:
    """The trained module, its data, and its validation metrics."""
    assert isinstance(config.model, ModelConfig)
    shape = config.model
    torch.manual_seed(derive_seed(config.seed, "initial weights"))
    n_steps = config.trainer.steps(shape.n_ctx)
    data = TokenDataModule(
        tokens,
        shape.n_ctx,
        config.trainer.batch_size,
        n_steps,
        derive_seed(config.seed, "batches"),
        config.trainer.validation_windows,
        config.trainer.workers,
        config.trainer.pin_memory,
    )
    vocab_size = load_tokenizer(tokens / TOKENIZER).vocab_size
    bigram_vv = None
    if shape.bigram != "none":
        counts_vv = bigram_counts(data.train.tokens, vocab_size)
        bigram_vv = bigram_log_probabilities(torch.from_numpy(counts_vv))
    model = Transformer(shape, vocab_size, bigram_vv)
    if dense is not None and config.trainer.start == "reference":
        start_from(model, dense)
    objective: Objective = NextToken()
    if dense is not None and config.bridge is not None:
        objective = bridge_objective(config, model, dense)
    sparsifier = make_sparsifier(config.sparsity, model, n_steps, derive_seed(config.seed, "sparsity"))
    module = LanguageModule(model, objective, sparsifier, config.trainer, n_steps)
    return module, data, fit(module, data, folder, loggers, config.name, config.snapshots.before_the_end)
