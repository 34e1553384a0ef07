"""Time whole trainings: dense, the exact sparse method, the amortised one, and exact in plain PyTorch.

1. A training's cost changes along its schedule: dense steps first, few nonzeros later, a dense gradient now
   and then. Each method is timed at POINTS moments in the middle of equal parts of the training, and the
   mean over them is the cost of a step. For the dense model all moments are alike, so one is timed.
2. At a moment the weights are first brought to the kept fraction that the schedule has there. The amortised
   method is timed over whole periods of its dense gradients, after one untimed period.
3. Methods take turns at each moment, so that a slowdown of the machine affects all of them.

Tokens and weights are random (`sparsity_lab.training.timing`).
"""

import logging
import statistics
from functools import partial
from typing import Any

import torch

from benchmarks.memory import in_own_process, most_resident
from benchmarks.plain_pytorch import PlainMagnitude, PlainNextToken, PlainTransformer
from sparsity_lab.kernels.machine import native_bf16, prepare_processor
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.objective import NextToken
from sparsity_lab.training.sparsity import amortised, magnitude, make_sparsifier, none
from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig
from sparsity_lab.training.timing import POINTS, TimedTraining

log = logging.getLogger(__name__)

VOCABULARY, N_CTX, BATCH = 2048, 128, 16  # as in conf/
TOKENS = BATCH * N_CTX
STEPS = 1000  # about 2 million tokens
METHODS = ("dense", "exact", "amortised", "plain")
COLUMNS = (
    *("d_model", "method", "kept_fraction", "precision", "threads", "tokens_per_second"),
    *("lowest", "highest", "ratio_to_dense", "ratio_lowest", "ratio_highest", "peak_mb"),
)


def kept_share(width: int) -> float:
    """Return the final kept fraction at one d_model: 4 % at 256, 1/32 at 512, 1/64 at 1024, and so on."""
    return 0.04 if width <= 256 else 16 / width


class Training(TimedTraining):
    """A training of one method at one d_model."""

    def __init__(self, method: str, width: int) -> None:
        torch.manual_seed(0)
        shape = ModelConfig(
            n_layer=2, d_model=width, n_ctx=N_CTX, activation_fraction=1.0 if method == "dense" else 0.25
        )
        make = PlainTransformer if method == "plain" else Transformer
        model = make(shape, VOCABULARY, torch.randn(VOCABULARY, VOCABULARY))
        sparsity: SparsifierConfig = none.Config()
        period = 1
        if method == "amortised":
            sparsity = amortised.Config(kept_fraction=kept_share(width))
            period = sparsity.dense_every
        elif method != "dense":
            sparsity = magnitude.Config(kept_fraction=kept_share(width))
        sparsifier = make_sparsifier(sparsity, model, STEPS, 0)
        if isinstance(sparsity, magnitude.Config) and method == "plain":
            sparsifier = PlainMagnitude(sparsity, model, STEPS)
        config = TrainerConfig(tokens=STEPS * TOKENS, batch_size=BATCH, learning_rate=0.01)
        objective = PlainNextToken() if method == "plain" else NextToken()
        super().__init__(model, objective, sparsifier, config, STEPS, period)


def measure(
    width: int, methods: list[str], repetitions: int, seconds: float, only: str | None = None
) -> list[dict[str, Any]]:
    """Return a row of the table for each method at one d_model; with `only`, "speed" or "memory", a part."""
    threads = torch.get_num_threads()
    rows: list[dict[str, Any]] = [
        {
            "d_model": width,
            "method": method,
            "kept_fraction": 1.0 if method == "dense" else round(kept_share(width), 5),
            "precision": "bfloat16" if native_bf16() else "float32",
            "threads": threads,
        }
        for method in methods
    ]
    if only != "speed":
        for row in rows:
            row["peak_mb"] = round(in_own_process(partial(peak_memory, row["method"], width, threads)))
    if only != "memory":
        seconds_a_step = time_steps(width, methods, repetitions, seconds)
        for row in rows:
            row.update(_speed(seconds_a_step[row["method"]], seconds_a_step.get("dense")))
    for row in rows:
        log.info("%s", ", ".join(f"{key} {value}" for key, value in row.items()))
    return rows


def time_steps(width: int, methods: list[str], repetitions: int, seconds: float) -> dict[str, list[float]]:
    """Return the mean seconds of each method's steps over a whole training, once per repetition."""
    trainings = {method: Training(method, width) for method in methods}
    moments = [(number + 0.5) / POINTS for number in range(POINTS)]
    for training in trainings.values():
        training.step()  # the first step creates the optimizer's state and compiles kernels
    steps: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(repetitions):
        costs: dict[str, list[float]] = {method: [] for method in methods}
        for moment in moments:
            for method, training in trainings.items():
                if method != "dense" or moment == moments[0]:
                    training.go_to(moment)
                    costs[method].append(training.seconds_a_step(seconds))
                    log.info(
                        "d_model %d, %s, at %.3f of training: %.0f ms a step",
                        width, method, moment, 1000 * costs[method][-1],
                    )  # fmt: skip
        for method, found in costs.items():
            steps[method].append(statistics.fmean(found))
    return steps


def _speed(steps: list[float], dense: list[float] | None) -> dict[str, Any]:
    """Return the table's entries on speed. Ratios are formed within each repetition."""
    speeds = [TOKENS / step for step in steps]
    found = {
        "tokens_per_second": round(statistics.median(speeds)),
        "lowest": round(min(speeds)),
        "highest": round(max(speeds)),
    }
    if dense is None:
        return found
    ratios = [theirs / ours for theirs, ours in zip(dense, steps, strict=True)]
    return found | {
        "ratio_to_dense": round(statistics.median(ratios), 2),
        "ratio_lowest": round(min(ratios), 2),
        "ratio_highest": round(max(ratios), 2),
    }


def peak_memory(method: str, width: int, threads: int) -> float:
    """Measure the rise in peak memory over steps at the start and at the end, in megabytes; NaN off Linux."""
    prepare_processor(threads)
    before = most_resident()
    training = Training(method, width)
    training.step()
    for _ in range(max(1, training.period)):
        training.step()
    training.go_to(1 - 1 / STEPS)
    training.step()
    return most_resident() - before
