"""The core hours of a sweep's trainings, from the speed of a few steps of each group of jobs on this machine.

1. The jobs of a group (kind, width and method) have about one speed, that of the group's first job.
2. Its steps are timed along the training's schedule (`training.timing`), in seconds of processor time, with
   the job's number of threads.
3. A job's core hours are its tokens divided by that speed. Circuits are not included.
"""

import os
from collections.abc import Callable, Sequence

import torch

from sparsity_lab.config import RunConfig
from sparsity_lab.core.errors import UserError
from sparsity_lab.kernels.machine import number_format, prepare_processor
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.foreseen import work_of
from sparsity_lab.training.timing import tokens_per_core_second

SECONDS = 1.0  # of steps at each moment of a training


def describe_sweep(
    jobs: Sequence[RunConfig],
    trials: Sequence[RunConfig],
    say: Callable[[str], object],
    seconds: float = SECONDS,
) -> str:
    """Time the groups and format a table with a line for each, and for the trials of each.

    `say` gets a line for each group as soon as it has been timed.

    Raises:
        UserError: a job trains nothing, or its vocabulary is not in the config.
    """
    threads = jobs[0].threads or torch.get_num_threads()
    prepare_processor(jobs[0].threads, jobs[0].kernels)
    speeds: dict[str, float] = {}
    rows, total = [], 0.0
    for title, configs in (("jobs", jobs), ("trials", trials)):
        for group, members in _grouped(configs).items():
            if group not in speeds:
                speeds[group] = speed_of(members[0], seconds)
                say(f"{group}: {speeds[group]:,.0f} tokens a core second\n")
            hours = [config.trainer.tokens / speeds[group] / 3600 for config in members]
            total += sum(hours)
            tokens = sum(config.trainer.tokens for config in members) / len(members) / 1e6
            rows.append(
                f"{title:<8}{group:<30}{len(members):>5}{tokens:>10.1f}{speeds[group]:>12,.0f}"
                f"{sum(hours) / len(hours):>12.2f}{sum(hours):>10.1f}"
            )
    header = (
        f"{'':<8}{'group':<30}{'jobs':>5}{'M tokens':>10}{'per core s':>12}{'core h each':>12}{'core h':>10}"
    )
    precision = number_format(jobs[0].trainer.precision)
    ending = (
        f"training takes {total:.1f} core hours; circuits are not included\n"
        f"measured here on {threads} thread{'s' * (threads > 1)} of {os.cpu_count()} cores, {precision}, "
        f"{seconds:g} s of steps or more at each moment of a training"
    )
    return "\n".join([header, *rows, ending]) + "\n"


def speed_of(config: RunConfig, seconds: float = SECONDS) -> float:
    """Return the training speed of a job in tokens per second of processor time."""
    assert isinstance(config.model, ModelConfig)
    vocab_size: int = config.tokenizer.vocab_size  # type: ignore[union-attr]
    torch.manual_seed(0)
    bigram_vv = torch.randn(vocab_size, vocab_size) if config.model.bigram != "none" else None
    model = Transformer(config.model, vocab_size, bigram_vv)
    return tokens_per_core_second(model, config.sparsity, config.trainer, seconds)


def _grouped(configs: Sequence[RunConfig]) -> dict[str, list[RunConfig]]:
    found: dict[str, list[RunConfig]] = {}
    for config in configs:
        work = work_of(config)
        if work is None:
            raise UserError(
                f"{config.name}: its own model must be trained, and its tokenizer.vocab_size known"
            )
        found.setdefault(work.group, []).append(config)
    return found
