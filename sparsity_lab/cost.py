"""Estimate a run's weights, memory, FLOPs and GPU-hours from its config. Nothing is allocated.

    python -m sparsity_lab.cost experiment=paper [model.d_model=4096 ...]
    python -m sparsity_lab.cost +sweep=frontier

For a sweep, time a few training steps of each kind and width here, and print the core hours of its jobs.

A multiply-add counts as two FLOPs. Weight sparsity saves none: products, gradients and Adam's moments stay
dense (Gao et al. 2025, App. A.2). AdamW, AbsTopK and projection are bound by memory traffic and are not
counted. Every rank holds full weights, gradients and Adam state; only activations are split.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from sparsity_lab.config import RunConfig, from_hydra, number_of_weights
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.sweep.composed import ComposedSweep, write_about
from sparsity_lab.training.sparsity.sparsifier import PARTS

# dense bfloat16 products, 1e12 FLOPs per second, from the data sheets; memory in GiB
DEVICES = {"A100": (312.0, 80), "H100": (989.0, 80), "H200": (989.0, 141)}
UTILISATION = 0.3  # share of that peak: a guess for widths of 2,000 and heads of 16, not measured
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Cost:
    """Cost of training one model. `memory` is bytes per rank by purpose; FLOPs are summed over ranks."""

    weights: int
    sparse_weights: int
    tokens: int
    steps: int
    forward_flops_per_token: int
    train_flops_per_token: int
    memory: dict[str, int]

    @property
    def train_flops(self) -> int:
        """FLOPs of the whole training run."""
        return self.tokens * self.train_flops_per_token

    def gpu_hours(self, tera_flops: float, utilisation: float = UTILISATION) -> float:
        """Hours on one device with this peak at this utilisation. Divide by n for n devices."""
        return self.train_flops / (tera_flops * 1e12 * utilisation) / 3600


def cost(config: RunConfig) -> Cost:
    """Estimate the cost of the training run that `config` describes.

    Raises:
        UserError: the size of the model or of the vocabulary is not in the config.
    """
    if not isinstance(config.model, ModelConfig):
        raise UserError(f"model: {config.model.kind}: nothing is trained; allowed: sparse, dense")
    vocab_size = getattr(config.tokenizer, "vocab_size", None)
    if vocab_size is None:
        raise UserError(f"tokenizer: {config.tokenizer.kind}: its vocab_size must be known; allowed: bpe")
    model, trainer = config.model, config.trainer
    weights, sparse, forward, backward = measure(model, vocab_size, config.sparsity.parts)
    steps = trainer.steps(model.n_ctx)
    rows = trainer.batch_size // trainer.ranks
    memory = {
        "weights": FLOAT * weights,
        "gradients": FLOAT * weights,
        "Adam's two moments": 2 * FLOAT * weights,
        "DDP's buckets": FLOAT * weights if trainer.ranks > 1 else 0,
        "fixed bigram table": FLOAT * vocab_size**2 if model.bigram == "fixed" else 0,
        "activations": rows * model.n_ctx * activation_bytes(model, vocab_size),
    }
    return Cost(
        weights=weights,
        sparse_weights=sparse,
        tokens=steps * trainer.batch_size * model.n_ctx,
        steps=steps,
        forward_flops_per_token=forward,
        train_flops_per_token=forward + backward,
        memory={purpose: size for purpose, size in memory.items() if size},
    )


def measure(model: ModelConfig, vocab_size: int, parts: Sequence[str] = PARTS) -> tuple[int, int, int, int]:
    """Count weights, weights under sparsity, and FLOPs per token of the forward and backward passes.

    Torch counts them on a meta model with a full context. Attention counts the full square, of which causal
    kernels may skip half. The backward pass counts the scores again, because kernels recompute them.

    Raises:
        UserError: the model needs tensors larger than torch allows.
    """
    try:
        with torch.device("meta"):
            empty = Transformer(model, vocab_size)
            tokens = torch.zeros(1, model.n_ctx, dtype=torch.long)
    except (RuntimeError, TypeError, OverflowError):
        raise UserError("model: too large for any machine") from None
    with FlopCounterMode(display=False) as forward:
        loss = empty(tokens).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    by_operation = forward.get_flop_counts()["Global"]
    attention = sum(flops for operation, flops in by_operation.items() if "bmm" in str(operation))
    flops = forward.get_total_flops(), backward.get_total_flops() + attention // 2
    return (
        sum(parameter.numel() for parameter in empty.parameters()),
        number_of_weights(model, vocab_size, parts),
        flops[0] // model.n_ctx,
        flops[1] // model.n_ctx,
    )


def activation_bytes(model: ModelConfig, vocab_size: int) -> int:
    """Return the bytes per token, in float32, that the forward pass keeps for the backward pass.

    A layer keeps the inputs and scales of its two norms, the inputs of its matrices, GELU's input, and
    attention's queries, keys, values and outputs. A site under AbsTopK also keeps a one-byte mask per
    channel. The head keeps the norm's input, scale and output, and the log-probabilities. This is with the
    kernels of a processor; without them, as on a GPU, each norm also keeps its normalised values.
    """
    d, read, channels = model.d_model, model.d_read, model.width(Site.ATTN_Q)
    neurons = model.width(Site.MLP_NEURON)
    numbers = 2 * (d + 1) + 2 * read + 4 * channels + 2 * neurons + model.heads
    thinned = model.activation_sites if model.activation_fraction < 1 else ()
    marks = sum(model.width(site) for site in model.node_sites if site in thinned)
    return model.n_layer * (FLOAT * numbers + marks) + FLOAT * (2 * d + 1 + vocab_size)


def describe(config: RunConfig) -> str:
    """Format the cost as a readable table."""
    found, total = cost(config), sum(cost(config).memory.values())
    lines = [
        f"{config.name}: {found.weights:,} weights, {found.sparse_weights:,} of them under weight sparsity",
        f"{found.tokens:,} tokens in {found.steps:,} steps",
        f"{found.train_flops_per_token:.3g} FLOPs a token ({found.forward_flops_per_token:.3g} forward), "
        f"{found.train_flops:.3g} in all; sparsity saves none",
        "",
        f"memory of each of {config.trainer.ranks} ranks, float32:",
        *(
            f"  {purpose:<20}{size / 2**30:>9.2f} GiB{size / total:>7.0%}"
            for purpose, size in found.memory.items()
        ),
        f"  {'all':<20}{total / 2**30:>9.2f} GiB",
        "every rank holds full weights, gradients and Adam state (DDP); only activations are split",
        "",
        f"training, at {UTILISATION:.0%} of the peak in bfloat16 (assumed, not measured):",
        *(
            f"  {name:<8}{duration(found.gpu_hours(peak)):>20}"
            + ("" if total < memory * 2**30 else f"; does not fit in {memory} GiB: more trainer.devices, "
               "or a smaller trainer.batch_size")
            for name, (peak, memory) in DEVICES.items()
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def duration(gpu_hours: float) -> str:
    """Format a duration in GPU-hours, or in GPU-minutes below one hour."""
    if gpu_hours < 2 / 60:
        return "< 2 GPU-minutes"
    if gpu_hours < 1:
        return f"{60 * gpu_hours:.0f} GPU-minutes"
    return f"{gpu_hours:.{1 if gpu_hours < 10 else 0}f} GPU-hours"


def main(overrides: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    if {"--help", "-h"} & set(overrides):
        sys.stdout.write(__doc__ or "")
        return 0
    return write_about(overrides, lambda config: describe(from_hydra(config)), _of_sweep)


def _of_sweep(sweep: ComposedSweep) -> str:
    from sparsity_lab.stages.sweep_cost import describe_sweep  # imports Lightning, which takes seconds

    jobs, trials = ([from_hydra(config) for config in configs] for configs in (sweep.jobs, sweep.trials))
    return describe_sweep(jobs, trials, sys.stderr.write)


if __name__ == "__main__":
    start(lambda: main(sys.argv[1:]))
