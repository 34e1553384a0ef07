"""Stage `baselines`: the validation loss of n-gram models, counted on as many tokens as a model sees.

It depends on the text alone, so all models with the same text and number of training tokens share it.
"""

import logging
from pathlib import Path

from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.files import write_json
from sparsity_lab.core.stage import Stage, content_hash_of, run_stage
from sparsity_lab.data.ngrams import MAX_TOKENS, ngram_losses
from sparsity_lab.data.packed import map_tokens, read_meta
from sparsity_lab.data.validation_text import validation_text
from sparsity_lab.importers.imported import ImportedConfig

log = logging.getLogger(__name__)

BASELINES = "baselines.json"
BASELINES_VERSION = 1  # raise when the same text would give other losses


def baselines(config: RunConfig, tokens: Path, root: Path) -> Path | None:
    """The folder of the n-gram models' losses; None for a model from elsewhere, trained on other text.

    They are trained on the first tokens of the training split, as many as the model sees but no more than
    there are or than MAX_TOKENS, and measured on the windows of the model's final loss.
    """
    if isinstance(config.model, ImportedConfig):
        return None
    n_ctx, n_windows = config.model.n_ctx, config.trainer.final_windows
    n_tokens = min(trained_tokens(config), read_meta(tokens).train.tokens, MAX_TOKENS)

    def make(folder: Path) -> None:
        log.info("n-gram baselines on %s tokens ...", f"{n_tokens:,}")
        train, text = map_tokens(tokens, "train"), validation_text(tokens, n_ctx, n_windows)
        losses = ngram_losses(train.tokens[:n_tokens], text.windows_wc.numpy(), train.vocab_size)
        found = {metrics.NGRAM_TOKENS.name: float(n_tokens)}
        for n, losses_wt in zip(metrics.NGRAMS, losses, strict=True):
            for name, estimate in text.estimates(losses_wt).items():
                if (n, name) in metrics.NGRAM_LOSS:
                    found[metrics.NGRAM_LOSS[n, name].name] = estimate.loss
        write_json(folder / BASELINES, found)

    inputs = {
        "tokens": content_hash_of(tokens),
        "n_tokens": n_tokens,
        "n_ctx": n_ctx,
        "n_windows": n_windows,
    }
    return run_stage(Stage("baselines", f"ngrams-{n_tokens}", BASELINES_VERSION, inputs, make), root).path


def trained_tokens(config: RunConfig) -> int:
    """Tokens that the training of `config` reads, repetitions included."""
    n_ctx = config.model.n_ctx
    return config.trainer.steps(n_ctx) * config.trainer.batch_size * n_ctx
