"""Time whole trainings: dense, the exact sparse method, the amortised one, and exact in plain PyTorch.

"quick" is the amortised method with the values of `conf/sparsity/amortised_quick.yaml`.

1. A training's cost changes along its schedule: dense steps first, few nonzeros later, a dense gradient now
   and then. The cost of a step is the mean over POINTS moments, in the middle of equal parts of the training.
   Of a method's moments with the same kept fraction, one is timed and stands for all.
2. At a moment the weights are first brought to the kept fraction that the schedule has there. The amortised
   method is timed over whole periods of its dense gradients, after one untimed period.
3. The dense model and the methods take turns at each moment, so that a slowdown of the machine affects all.

Tokens and weights are random (`sparsity_lab.training.timing`).
"""

import csv
import logging
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import in_own_process, most_resident
from benchmarks.plain_pytorch import PlainMagnitude, PlainNextToken, PlainTransformer
from sparsity_lab.core.errors import UserError
from sparsity_lab.kernels.machine import number_format, prepare_processor
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.training.config import Precision, TrainerConfig
from sparsity_lab.training.objective import NextToken
from sparsity_lab.training.sparsity import amortised, magnitude, make_sparsifier, none
from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig
from sparsity_lab.training.timing import POINTS, TimedTraining

log = logging.getLogger(__name__)

VOCABULARY, N_CTX, BATCH = 2048, 128, 16  # as in conf/
STEPS = 1000  # about 2 million tokens
METHODS = ("dense", "exact", "amortised", "quick", "plain")
QUICK: dict[str, Any] = {"start": 4.0, "anneal_until": 0.25, "anneal": "linear"}
SPEED = (
    *("repetitions", "tokens_per_second", "lowest", "highest"),
    *("ratio_to_dense", "ratio_lowest", "ratio_highest"),
)
SHAPE = ("d_model", "method", "activation_fraction", "batch_size", "nonzeros")
COLUMNS = (*SHAPE, "kept_fraction", "precision", "threads", *SPEED, "peak_mb")
KEY = (*SHAPE, "precision", "threads")  # what a row of the table is about


@dataclass(frozen=True)
class Shape:
    """The trainings of one group of rows: d_model, AbsTopK of the sparse models, windows a step, budget.

    `nonzeros`: final number of nonzero weights in place of `kept_share`, at least one in each channel.
    `precision`: that of the trainer; "auto" is bfloat16 where the processor has it.
    """

    width: int
    activation_fraction: float = 1.0
    batch_size: int = BATCH
    nonzeros: int | None = None
    precision: Precision = "auto"

    @property
    def budget(self) -> dict[str, Any]:
        """The settings of a sparsity method."""
        if self.nonzeros is None:
            return {"kept_fraction": kept_share(self.width)}
        return {"nonzeros": self.nonzeros, "at_least": 1}


def kept_share(width: int) -> float:
    """Return the final kept fraction at one d_model: 4 % at 256, 1/32 at 512, 1/64 at 1024, and so on."""
    return 0.04 if width <= 256 else 16 / width


def _kept_fraction(method: str, shape: Shape) -> float | str:
    if method == "dense":
        return 1.0
    return round(kept_share(shape.width), 5) if shape.nonzeros is None else ""


class Training(TimedTraining):
    """A training of one method."""

    def __init__(self, method: str, shape: Shape) -> None:
        torch.manual_seed(0)
        fraction = 1.0 if method == "dense" else shape.activation_fraction
        config = ModelConfig(n_layer=2, d_model=shape.width, n_ctx=N_CTX, activation_fraction=fraction)
        make = PlainTransformer if method == "plain" else Transformer
        model = make(config, VOCABULARY, torch.randn(VOCABULARY, VOCABULARY))
        sparsity: SparsifierConfig = none.Config()
        period = 1
        if method in ("amortised", "quick"):
            sparsity = amortised.Config(**shape.budget, **(QUICK if method == "quick" else {}))
            period = sparsity.dense_every
        elif method != "dense":
            sparsity = magnitude.Config(**shape.budget)
        sparsifier = make_sparsifier(sparsity, model, STEPS, 0)
        if isinstance(sparsity, magnitude.Config) and method == "plain":
            sparsifier = PlainMagnitude(sparsity, model, STEPS)
        trainer = TrainerConfig(
            tokens=STEPS * shape.batch_size * N_CTX,
            batch_size=shape.batch_size,
            learning_rate=0.01,
            precision=shape.precision,
        )
        objective = PlainNextToken() if method == "plain" else NextToken()
        super().__init__(model, objective, sparsifier, trainer, STEPS, period)

    def kept_at(self, progress: float) -> float:
        """Return the kept fraction after this share of the training."""
        return self.module.sparsifier.kept_fraction(round(progress * self.n_steps))


def measure(
    shape: Shape, methods: list[str], repetitions: int, seconds: float, only: str | None = None
) -> list[dict[str, Any]]:
    """Return a row of the table for each method at one shape; with `only`, "speed" or "memory", a part."""
    threads = torch.get_num_threads()
    rows: list[dict[str, Any]] = [
        {
            "d_model": shape.width,
            "method": method,
            "activation_fraction": 1.0 if method == "dense" else shape.activation_fraction,
            "batch_size": shape.batch_size,
            "nonzeros": "" if method == "dense" or shape.nonzeros is None else shape.nonzeros,
            "kept_fraction": _kept_fraction(method, shape),
            "precision": number_format(shape.precision),
            "threads": threads,
        }
        for method in methods
    ]
    if only != "speed":
        for row in rows:
            row["peak_mb"] = round(in_own_process(partial(peak_memory, row["method"], shape, threads)))
    if only != "memory":
        seconds_a_step = time_steps(shape, methods, repetitions, seconds)
        tokens, dense = shape.batch_size * N_CTX, seconds_a_step.get("dense")
        for row in rows:
            row["repetitions"] = repetitions
            row.update(_speed(tokens, seconds_a_step[row["method"]], dense))
    for row in rows:
        log.info("%s", ", ".join(f"{key} {value}" for key, value in row.items()))
    return rows


def time_steps(shape: Shape, methods: list[str], repetitions: int, seconds: float) -> dict[str, list[float]]:
    """Return the mean seconds of each method's steps over a whole training, once per repetition."""
    trainings = {method: Training(method, shape) for method in methods}
    for training in trainings.values():
        training.step()  # the first step creates the optimizer's state and compiles kernels
    found: dict[str, dict[float, list[float]]] = {method: {} for method in methods}
    moments = [(number + 0.5) / POINTS for number in range(POINTS)]
    for moment in moments:
        kept = {method: training.kept_at(moment) for method, training in trainings.items()}
        due = [method for method in methods if kept[method] not in found[method]]
        for method in due:
            trainings[method].go_to(moment)
        for _ in range(repetitions if due else 0):
            for method in dict.fromkeys(["dense", *due] if "dense" in methods else due):
                seconds_a_step = trainings[method].seconds_a_step(seconds)
                found[method].setdefault(kept[method], []).append(seconds_a_step)
                log.info(
                    "d_model %d, %s, at %.3f of training: %.0f ms a step",
                    shape.width, method, moment, 1000 * seconds_a_step,
                )  # fmt: skip
    return {
        method: [
            statistics.fmean(
                statistics.fmean(found[method][training.kept_at(moment)][turn::repetitions])
                for moment in moments
            )
            for turn in range(repetitions)
        ]
        for method, training in trainings.items()
    }


def _speed(tokens: int, steps: list[float], dense: list[float] | None) -> dict[str, Any]:
    """Return the table's entries on speed. Ratios are formed within each repetition."""
    speeds = [tokens / step for step in steps]
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


def peak_memory(method: str, shape: Shape, threads: int) -> float:
    """Measure the rise in peak memory over steps at the start and at the end, in megabytes; NaN off Linux."""
    prepare_processor(threads)
    before = most_resident()
    training = Training(method, shape)
    training.step()
    for _ in range(max(1, training.period)):
        training.step()
    training.go_to(1 - 1 / STEPS)
    training.step()
    return most_resident() - before


def joined(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table at `path`, if there is one, with what `rows` say in place of what it said.

    Raises:
        UserError: the file is not such a table.
    """
    table: dict[tuple[str, ...], dict[str, Any]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UserError(f"--csv: {path}: not a table of whole trainings; name another file")
            table = {tuple(row[key] for key in KEY): row for row in reader}
    for row in rows:
        key = tuple(str(row[name]) for name in KEY)
        gone = SPEED if "tokens_per_second" in row else ()  # a ratio belongs to the speed of its own run
        table[key] = {name: old for name, old in table.get(key, {}).items() if name not in gone} | row
    return sorted(table.values(), key=lambda row: (int(row["d_model"]), METHODS.index(row["method"])))
