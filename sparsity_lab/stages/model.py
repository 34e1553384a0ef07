"""Stage `model`: a trained model's folder: tensors, measurements, snapshots on the way.

A stage is a function of its config and inputs; its output is a folder that is made once, named by the hash
of both, and shared by all runs below the same root.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparsity_lab.bridges.objective import BridgeObjective
from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.hashing import content_hash, derive_seed
from sparsity_lab.core.stage import build, partial_of
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.data.packed import bigram_counts
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.checkpoints import count_weights, save_model
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.transformer import Transformer, bigram_log_probabilities
from sparsity_lab.stages.context import TOKENIZER
from sparsity_lab.stages.reference import about_dense, bridge_objective, finish_bridge, start_from
from sparsity_lab.training.fit import CHECKPOINTS, fit, precision
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.objective import NextToken, Objective
from sparsity_lab.training.sparsity import make_sparsifier

MODEL_VERSION = 3  # raise when the same config would give another model
ONLY_HOW = {"log_every", "checkpoint_every", "workers", "pin_memory", "start"}  # not of the model
VALIDATION = "validation.json"


def trained_model(
    config: RunConfig,
    tokens: Path,
    root: Path,
    loggers: Callable[[Path], list[Any]],
    dense: Path | None = None,
) -> tuple[Path, bool]:
    """Stage `model`: the trained model's folder, and whether it was trained just now.

    An interrupted training goes on from its last checkpoint. `loggers` makes those of a folder. `dense` is
    the existing dense model's folder, where the training starts from it or bridges to it (stage `bridge`).
    """
    about = _about_model(config, tokens, dense)

    def make(folder: Path) -> None:
        if (folder / VALIDATION).exists():
            return  # interrupted when all was done but its checkpoints' removal
        module, data, final = _train(config, tokens, dense, folder, loggers(folder))
        save_model(module.model, folder)
        if isinstance(module.objective, BridgeObjective):
            finish_bridge(module.objective, module.model, data.val_dataloader(), config.seed, folder)
        measured = final | weight_counts(module.model)
        write_json(folder / VALIDATION, measured)  # last: says that nothing is left to do

    def make_and_clear(folder: Path) -> None:
        make(folder)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

    folder = _model_folder(config, about, root)
    is_new = not folder.exists()
    return build(folder, about, make_and_clear, resume=True), is_new


def help_train(config: RunConfig, tokens: Path, root: Path) -> None:
    """Train the model of `trained_model` as one of the other ranks that srun or torchrun has started.

    Raises:
        UserError: the model needs a dense one, which the first rank alone knows.
    """
    if config.bridge is not None or config.trainer.start == "dense":
        raise UserError("trainer: with a dense model, srun and torchrun start one process alone")
    folder = _model_folder(config, _about_model(config, tokens, None), root)
    if not folder.exists():
        _train(config, tokens, None, partial_of(folder), [])


def _model_folder(config: RunConfig, about: dict[str, Any], root: Path) -> Path:
    kind = "models" if config.bridge is None else "bridges"
    return root / kind / f"{config.name}-{content_hash(about)}"


def _about_model(config: RunConfig, tokens: Path, dense: Path | None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "stage": "model",
        "version": MODEL_VERSION,
        "tokens": tokens.name,
        "model": config.model.model_dump(mode="json"),
        "sparsity": config.sparsity.identity(),
        "trainer": config.trainer.model_dump(mode="json", exclude=ONLY_HOW),
        "precision": precision(config.trainer.precision),
        "seed": config.seed,
    }
    if config.circuits.on_the_way:  # the folder holds the snapshots too
        about["snapshots"] = config.circuits.on_the_way
    return about | about_dense(config, dense)


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
    if dense is not None and config.trainer.start == "dense":
        start_from(model, dense)
    objective: Objective = NextToken()
    if dense is not None and config.bridge is not None:
        objective = bridge_objective(config, model, dense)
    sparsifier = make_sparsifier(config.sparsity, model, n_steps, derive_seed(config.seed, "sparsity"))
    module = LanguageModule(model, objective, sparsifier, config.trainer, n_steps)
    return module, data, fit(module, data, folder, loggers, config.name, config.circuits.on_the_way)


def weight_counts(model: Transformer) -> dict[str, float]:
    """The counts of a model's weights that its record tells, by name."""
    weights, nonzeros = count_weights(model)
    return {metrics.WEIGHTS.name: weights, metrics.MODEL_NONZEROS.name: nonzeros}
