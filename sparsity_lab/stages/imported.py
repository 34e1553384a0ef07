"""Stage `model` for a model that exists already: read, checked against the tokenizer, and measured.

The folder that it leaves is that of a trained model (tensors, config, validation, metrics), so everything
after this stage is the same for both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.stage import build
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.importers.imported import ExistingConfig
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.context import TOKENIZER, validation_windows
from sparsity_lab.stages.model import VALIDATION, weight_counts
from sparsity_lab.training.module import kurtosis
from sparsity_lab.training.objective import cross_entropy

EXISTING_VERSION = 1  # raise when the same files would give another model


def existing_model(
    config: RunConfig, tokens: Path, root: Path, loggers: Callable[[Path], list[Any]]
) -> tuple[Path, bool]:
    """The model's folder, and whether it was read just now. `loggers` makes those of a folder.

    Raises:
        UserError: the model can't be read, or the tokenizer has tokens that it doesn't know.
    """
    existing = config.model
    assert isinstance(existing, ExistingConfig)
    about = {
        "stage": "model",
        "version": EXISTING_VERSION,
        "kind": existing.kind,
        "files": existing.digests(),
        "tokens": tokens.name,
        "n_ctx": existing.n_ctx,
        "validation_windows": config.trainer.validation_windows,
    }

    def make(folder: Path) -> None:
        model = existing.read()
        vocab_size = load_tokenizer(tokens / TOKENIZER).vocab_size
        if vocab_size > model.vocab_size:
            raise UserError(f"tokenizer: {vocab_size} tokens, but {existing.path} knows {model.vocab_size}")
        measured = validate_model(model, validation_windows(config, tokens))
        for logger in loggers(folder):
            logger.log_metrics(measured, 0)
        save_model(model, folder)
        write_json(folder / VALIDATION, measured | weight_counts(model))

    folder = root / "models" / f"{config.name}-{content_hash(about)}"
    is_new = not folder.exists()
    return build(folder, about, make), is_new


@torch.no_grad()
def validate_model(model: Transformer, batches: list[Tensor]) -> dict[str, float]:
    """What training measures on its validation windows, of batches (b, n_ctx + 1)."""
    final: list[Tensor] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is Site.RESID and layer == 2 * model.config.n_layer:
            final.append(kurtosis(x).mean())
        return x

    losses = [cross_entropy(model(batch[:, :-1], tap), batch[:, 1:]) for batch in batches]
    share_b = torch.tensor([float(len(batch)) for batch in batches])
    share_b /= share_b.sum()
    return {
        metrics.VALIDATION_LOSS.name: float(torch.stack(losses) @ share_b),
        metrics.KURTOSIS.name: float(torch.stack(final) @ share_b),
    }
