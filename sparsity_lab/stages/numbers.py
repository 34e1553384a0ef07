"""Numbers of a config that a run cannot use as they were given: told before any training, and recorded.

Each is a consequence of another number, for example of a tensor's size or of the corpus' length. The run uses
the nearest possible one, unless the config's own checks refuse it.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sparsity_lab.config import RunConfig
from sparsity_lab.data.packed import TokensMeta, read_meta
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import Replaced
from sparsity_lab.tasks.asked import pair_counts
from sparsity_lab.training.snapshots import step_at
from sparsity_lab.training.sparsity.magnitude import kept_count
from sparsity_lab.training.sparsity.sparsifier import BudgetConfig

log = logging.getLogger(__name__)

TOLERANCE = 0.01  # smaller differences are recorded, but not printed


def replaced_numbers(config: RunConfig, tokens: Path) -> tuple[Replaced, ...]:
    """List every number that the run replaces, given its folder of tokens."""
    meta = read_meta(tokens)
    found = [*_windows(config, meta), *_pairs(config)]
    if isinstance(config.model, ModelConfig):
        found += [*_nonzeros(config, config.model, meta.vocab_size), *_steps(config, config.model.n_ctx)]
        found += _activations(config.model)
    return tuple(one for one in found if one.used != one.asked)


def tell_replaced(replaced: Sequence[Replaced]) -> None:
    """Print a line for each number that differs by more than `TOLERANCE`."""
    for one in replaced:
        if not math.isclose(one.asked, one.used, rel_tol=TOLERANCE):
            log.warning("%s: %s asked, %s used: %s", one.key, _shown(one.asked), _shown(one.used), one.reason)


def _nonzeros(config: RunConfig, shape: ModelConfig, vocab_size: int) -> Iterator[Replaced]:
    """The weights that the last projection keeps: whole numbers, and at least j per channel (S1)."""
    sparsity = config.sparsity
    if not isinstance(sparsity, BudgetConfig):
        return
    with torch.device("meta"):
        weights = sparsity.weights(Transformer(shape, vocab_size)).values()
    total = sum(weight.numel() for weight, _ in weights)
    fraction, kept, raised = sparsity.final_fraction(total), 0, 0
    for weight, axis in weights:
        size, channels = weight.numel(), 1 if axis is None else weight.shape[axis]
        at_least = 0 if axis is None else min(sparsity.at_least, size // channels)
        here = kept_count(size, fraction, channels, at_least)
        kept, raised = kept + here, raised + (here > round(fraction * size))
    reason = "each tensor keeps a whole number of its weights"
    if raised:
        reason = (
            f"sparsity.at_least={sparsity.at_least} weights for each neuron and attention channel is more in "
            f"{raised} of {len(weights)} tensors"
        )
    if sparsity.nonzeros is not None:
        yield Replaced(key="sparsity.nonzeros", asked=sparsity.nonzeros, used=kept, reason=reason)
    elif sparsity.kept_fraction is not None:
        used = kept / total
        yield Replaced(key="sparsity.kept_fraction", asked=sparsity.kept_fraction, used=used, reason=reason)


def _steps(config: RunConfig, n_ctx: int) -> Iterator[Replaced]:
    trainer, n_steps = config.trainer, config.trainer.steps(n_ctx)
    per_step = trainer.batch_size * n_ctx
    reason = f"training takes whole steps of batch_size · n_ctx = {per_step:,} tokens"
    yield Replaced(key="trainer.tokens", asked=trainer.tokens, used=n_steps * per_step, reason=reason)
    reason = f"training has {n_steps} steps"
    validations = min(trainer.validations, n_steps)
    yield Replaced(key="trainer.validations", asked=trainer.validations, used=validations, reason=reason)
    for fraction in config.snapshots.before_the_end:
        used = step_at(fraction, n_steps) / n_steps
        yield Replaced(key="snapshots.fractions", asked=fraction, used=used, reason=reason)


def _windows(config: RunConfig, meta: TokensMeta) -> Iterator[Replaced]:
    trainer, n_ctx, size = config.trainer, config.model.n_ctx, meta.validation.tokens
    available = max(size - 1, 0) // n_ctx
    reason = f"the validation split has {size:,} tokens, and windows of n_ctx = {n_ctx} do not overlap"
    used = min(trainer.validation_windows, available)
    yield Replaced(
        key="trainer.validation_windows", asked=trainer.validation_windows, used=used, reason=reason
    )
    finally_used = min(trainer.final_windows, available)
    yield Replaced(key="trainer.final_windows", asked=trainer.final_windows, used=finally_used, reason=reason)
    if config.evidence.enabled:
        wanted = config.evidence.text_windows
        reason = "they are taken from the validation windows"
        yield Replaced(key="evidence.text_windows", asked=wanted, used=min(wanted, used), reason=reason)
    share = size / (size + meta.train.tokens)
    asked_share = config.corpus.validation_share
    default = type(config.corpus).model_fields["validation_share"].default
    if asked_share != default and share > 1.5 * asked_share:
        reason = "validation gets at least 2 MB of text or, of a small corpus, a tenth"
        yield Replaced(key="corpus.validation_share", asked=asked_share, used=share, reason=reason)


def _pairs(config: RunConfig) -> Iterator[Replaced]:
    tasks = config.tasks
    for name, task in tasks.available().items():
        if name in tasks.asked() and task.fixed is not None:
            for split, used in pair_counts(tasks, name).items():
                reason, asked = f"task {name} has no more pairs for this", getattr(tasks, f"n_{split}_pairs")
                yield Replaced(key=f"tasks.n_{split}_pairs", asked=asked, used=used, reason=reason)
    users = [("finder.pairs", getattr(config.finder, "pairs", None), "n_train_pairs", tasks.n_train_pairs)]
    if config.evidence.enabled:
        users.append(("evidence.pairs", config.evidence.pairs, "n_test_pairs", tasks.n_test_pairs))
    if config.steering is not None:
        users.append(("steering.pairs", config.steering.pairs, "n_test_pairs", tasks.n_test_pairs))
    for key, asked, name, available in users:
        if isinstance(asked, int):
            reason = f"tasks.{name} is {available}"
            yield Replaced(key=key, asked=asked, used=min(asked, available), reason=reason)


def _activations(shape: ModelConfig) -> Iterator[Replaced]:
    if shape.activation_fraction == 1:
        return
    widths = {site.value: shape.width(site) for site in shape.activation_sites}
    widths |= dict.fromkeys(shape.residual_sites, shape.d_model)
    if widths:
        site = min(widths, key=lambda name: shape.k(widths[name]) / widths[name])
        k, width = shape.k(widths[site]), widths[site]
        reason = f"AbsTopK keeps a whole number, {k} of the {width} activations at {site}"
        asked = shape.activation_fraction
        yield Replaced(key="model.activation_fraction", asked=asked, used=k / width, reason=reason)


def _shown(number: float) -> str:
    return f"{int(number):,}" if float(number).is_integer() else f"{number:.4g}"
