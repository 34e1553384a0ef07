"""Stage `models` for a model from elsewhere: read, and checked against the tokenizer.

The folder is laid out as a trained model's (tensors, config, curves of one point), so every later stage is
the same for both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsity_lab.config import RunConfig
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.stage import Built, Stage, content_hash_of, run_stage
from sparsity_lab.data.packed import TOKENIZER
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.data.validation_text import validation_text
from sparsity_lab.importers.imported import ImportedConfig
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.training.validation import validate_model

IMPORTED_VERSION = 4  # raise when the same files would give another model


def imported_model(
    config: RunConfig, tokens: Path, root: Path, loggers: Callable[[Path], list[Any]]
) -> Built:
    """The model's folder, and whether it was read just now. `loggers` makes those of a folder.

    Raises:
        UserError: the model can't be read, or the tokenizer has tokens that it doesn't know.
    """
    imported, trainer = config.model, config.trainer
    assert isinstance(imported, ImportedConfig)

    def make(folder: Path) -> None:
        model = imported.read()
        vocab_size = load_tokenizer(tokens / TOKENIZER).vocab_size
        if vocab_size > model.vocab_size:
            raise UserError(f"tokenizer: {vocab_size} tokens, but {imported.path} knows {model.vocab_size}")
        text = validation_text(tokens, imported.n_ctx, trainer.validation_windows)
        measured = validate_model(model, text, trainer.batch_size)
        for logger in loggers(folder):
            logger.log_metrics(measured, 0)
        save_model(model, folder)

    inputs = {
        "kernels": kernels_are_on(),
        "kind": imported.kind,
        "files": imported.digests(),
        "tokens": content_hash_of(tokens),
        "n_ctx": imported.n_ctx,
        "validation_windows": trainer.validation_windows,
        "batch_size": trainer.batch_size,  # products of other shapes round otherwise
    }
    return run_stage(Stage("models", config.name, IMPORTED_VERSION, inputs, make), root)
