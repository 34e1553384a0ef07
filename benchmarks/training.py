"""Time a training step: dense, sparse with the project's kernels, and sparse in plain PyTorch.

    python -m benchmarks.training [--widths 128 256 512 1024] [--repetitions 5] [--out runs/bench]

1. A step is the forward and backward pass, gradient normalisation, AdamW and, if sparse, the projection. It
   uses the project's own modules on random tokens.
2. All kinds of step take turns, `repetitions` times, so that a slowdown of the machine affects all of them.
   Each turn also times a large matrix product, as the machine's peak. The table has medians and extremes.
3. Peak memory is measured in a separate process, relative to the memory before the model is built.

With `--csv FILE`, whole trainings are measured instead of steps (`benchmarks.whole_training`), and the table
is written to FILE, where rows of other shapes and methods stay:

    python -m benchmarks.training --csv FILE [--widths 1024] [--methods dense amortised]
        [--activation-fraction 0.25] [--batch-size 4] [--precision float32]

Otherwise writes bench.csv and bench.png. Compare the ratios; the absolute speeds depend on the machine.
"""

import argparse
import csv
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks import whole_training
from benchmarks.memory import in_own_process, most_resident
from benchmarks.plain_pytorch import PlainMagnitude, PlainNextToken, PlainTransformer
from sparsity_lab.core.program import start
from sparsity_lab.kernels.machine import native_bf16, number_format, prepare_processor
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.results.drawing import Figure
from sparsity_lab.training.config import Precision, TrainerConfig
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.objective import NextToken
from sparsity_lab.training.sparsity import magnitude, none
from sparsity_lab.training.sparsity.sparsifier import Sparsifier

log = logging.getLogger(__name__)

VOCABULARY, N_CTX, BATCH, NONZEROS = 2048, 128, 16, 100_000  # as in conf/
TOKENS = BATCH * N_CTX
PEAK_SIZE = 2048  # side of the square matrices whose product gives the peak
KINDS = {
    "dense": "dense",
    "plain": "sparse, plain PyTorch",
    "annealing": "sparse, half of the weights kept",
    "sparse": "sparse, at its final kept fraction",
}
COLUMNS = (
    *("d_model", "kind", "precision", "threads", "tokens_per_second", "lowest", "highest", "step_ms"),
    *("to_dense", "to_plain", "tflops", "peak_tflops", "share_of_peak", "peak_memory_mb"),
)
# options of whole trainings alone
OF_WHOLE = ("methods", "only", "activation_fraction", "batch_size", "nonzeros", "precision")
Step = Callable[[], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--widths", type=_positive, nargs="+", default=[128, 256, 512, 1024], help="d_model")
    parser.add_argument("--repetitions", type=_positive, default=5, help="number of turns per kind of step")
    parser.add_argument("--seconds", type=float, default=1.0, help="minimum length of a turn")
    parser.add_argument("--threads", type=_positive, help="cores to use; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the results")
    parser.add_argument("--csv", type=Path, help="measure whole trainings and write this table")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=whole_training.METHODS,
        default=list(whole_training.METHODS),
        help="methods of whole trainings",
    )
    parser.add_argument(
        "--only", choices=["speed", "memory"], help="measure only this of whole trainings; default: both"
    )
    parser.add_argument(
        "--activation-fraction",
        type=_share,
        default=1.0,
        help="AbsTopK of the sparse models in whole trainings; 1: none, as in conf/model/sparse.yaml",
    )
    parser.add_argument(
        "--batch-size", type=_positive, default=BATCH, help="windows in a step of whole trainings"
    )
    parser.add_argument(
        "--nonzeros",
        type=_positive,
        help="weights that whole sparse trainings keep; default: a share of 16 / d_model, at most 4 %%",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of whole trainings; auto: bfloat16 where the processor has it",
    )
    options = parser.parse_args(arguments)
    without = [name for name in OF_WHOLE if getattr(options, name) != parser.get_default(name)]
    if without and options.csv is None:
        parser.error(f"--{without[0].replace('_', '-')} is of whole trainings; give --csv FILE as well")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    prepare_processor(options.threads)
    rows: list[dict[str, Any]] = []
    if options.csv is not None:
        whole_training.joined(options.csv, [])  # fails at once if the file is another table
        for width in options.widths:
            shape = whole_training.Shape(
                width, options.activation_fraction, options.batch_size, options.nonzeros, options.precision
            )
            rows = whole_training.measure(
                shape, options.methods, options.repetitions, options.seconds, options.only
            )
            write_table(whole_training.COLUMNS, whole_training.joined(options.csv, rows), options.csv)
        return 0
    for width in options.widths:
        rows += measure(width, options.repetitions, options.seconds)
    write_table(COLUMNS, rows, options.out / "bench.csv")
    draw(rows, options.out / "bench.png")
    return 0


def measure(width: int, repetitions: int, seconds: float) -> list[dict[str, Any]]:
    """Return one row of the table per kind of step, at one d_model."""
    memory = {
        kind: in_own_process(partial(peak_memory, kind, width, torch.get_num_threads())) for kind in KINDS
    }
    steps = {kind: make_step(kind, width) for kind in KINDS}
    speeds: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "peak")}
    for step in steps.values():
        step()  # the first step creates the optimizer's state and compiles kernels
    for _ in range(repetitions):
        speeds["peak"].append(peak_flops())
        for kind, step in steps.items():
            speeds[kind].append(TOKENS / seconds_a_call(step, seconds))
    median = {kind: statistics.median(values) for kind, values in speeds.items()}
    flops = matrix_flops(width)
    rows = []
    for kind in KINDS:
        row: dict[str, Any] = {
            "d_model": width,
            "kind": kind,
            "precision": number_format("auto"),
            "threads": torch.get_num_threads(),
            "tokens_per_second": round(median[kind]),
            "lowest": round(min(speeds[kind])),
            "highest": round(max(speeds[kind])),
            "step_ms": round(1000 * TOKENS / median[kind], 1),
            "to_dense": round(_ratio(speeds[kind], speeds["dense"]), 3),
            "to_plain": round(_ratio(speeds[kind], speeds["plain"]), 3),
            "tflops": round(flops * median[kind] / 1e12, 4) if kind == "dense" else "",
            "peak_tflops": round(median["peak"] / 1e12, 4),
            "share_of_peak": round(flops * median[kind] / median["peak"], 3) if kind == "dense" else "",
            "peak_memory_mb": round(memory[kind]),
        }
        log.info(
            "d_model %d, %s: %d tokens/s (%d to %d), %.2f of dense, %.2f of plain, %d MB%s",
            width, KINDS[kind], row["tokens_per_second"], row["lowest"], row["highest"], row["to_dense"],
            row["to_plain"], row["peak_memory_mb"],
            f", {100 * row['share_of_peak']:.0f} % of the peak" if kind == "dense" else "",
        )  # fmt: skip
        rows.append(row)
    return rows


def make_step(kind: str, width: int) -> Step:
    """Build a model and return a function that runs one optimizer step on new random tokens."""
    torch.manual_seed(0)
    config = ModelConfig(
        n_layer=2, d_model=width, n_ctx=N_CTX, activation_fraction=1.0 if kind == "dense" else 0.25
    )
    make = PlainTransformer if kind == "plain" else Transformer
    model = make(config, VOCABULARY, torch.randn(VOCABULARY, VOCABULARY))
    trainer = TrainerConfig(tokens=TOKENS, batch_size=BATCH, learning_rate=0.01)
    sparsifier: Sparsifier = none.AllWeights()
    if kind != "dense":
        kept = {"kept_fraction": 0.5} if kind == "annealing" else {"nonzeros": NONZEROS}
        sparsity = magnitude.Config(anneal_until=0.0, **kept)
        sparsifier = (PlainMagnitude if kind == "plain" else magnitude.Magnitude)(sparsity, model, 1)
    objective = PlainNextToken() if kind == "plain" else NextToken()
    module = LanguageModule(model, objective, sparsifier, trainer, 1)
    optimizer = module.configure_optimizers()["optimizer"]
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        windows = torch.randint(VOCABULARY, (BATCH, N_CTX + 1), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            loss, _ = module.objective(model, windows, 0, None)
        loss.backward()
        module.scale_gradients()
        optimizer.step()
        optimizer.zero_grad()

    return step


def matrix_flops(width: int) -> int:
    """Return the FLOPs per token of the dense step's matrix products, including attention's."""
    weights = 2 * 12 * width * width + width * VOCABULARY
    attention = 2 * N_CTX * width  # causal: n_ctx · d_model for scores and mixed values, in two layers
    return 3 * 2 * (weights + attention)


def peak_flops() -> float:
    """Measure the FLOP/s of a large matrix product in the training precision."""
    dtype = torch.bfloat16 if native_bf16() else torch.float32
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE).to(dtype)
    return 2 * PEAK_SIZE**3 / seconds_a_call(lambda: a @ b, 0.3)


def peak_memory(kind: str, width: int, threads: int) -> float:
    """Measure the rise in peak memory over two steps, in megabytes; NaN outside Linux."""
    prepare_processor(threads)
    before = most_resident()
    step = make_step(kind, width)
    step()
    step()
    return most_resident() - before


def write_table(columns: Sequence[str], rows: list[dict[str, Any]], path: Path) -> None:
    """Write the table as CSV; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    log.info("wrote %s", path)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot tokens per second by width, one line per kind, and the ratios to the dense step."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    speeds, ratios = figure.subplots(1, 2)
    colours = {"dense": "#333333", "plain": "#999999", "annealing": "#56B4E9", "sparse": "#D55E00"}
    for kind, label in KINDS.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        widths = [row["d_model"] for row in of_kind]
        middle = [row["tokens_per_second"] for row in of_kind]
        spread = [
            [row["tokens_per_second"] - row["lowest"] for row in of_kind],
            [row["highest"] - row["tokens_per_second"] for row in of_kind],
        ]
        speeds.errorbar(widths, middle, yerr=spread, color=colours[kind], label=label, marker="o", capsize=3)
        if kind != "dense":
            ratios.plot(widths, [row["to_dense"] for row in of_kind], color=colours[kind], marker="o")
    ratios.axhline(1, color=colours["dense"])
    for axes in (speeds, ratios):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({row["d_model"] for row in rows}), sorted({row["d_model"] for row in rows}))
        axes.set_xlabel("d_model")
    speeds.set(yscale="log", ylabel="tokens per second", title="training step")
    ratios.set(ylabel="tokens per second, dense = 1")
    ratios.set_ylim(bottom=0)
    speeds.legend(frameon=False, loc="upper right")  # speeds fall with width; "best" would search for long
    figure.savefig(path, dpi=120, metadata={"Software": None})
    log.info("wrote %s", path)


def _ratio(values: list[float], others: list[float]) -> float:
    """Return the median of the ratios within each turn."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def seconds_a_call(call: Callable[[], Any], at_least: float) -> float:
    began, calls = time.perf_counter(), 0
    while True:
        call()
        calls += 1
        if (passed := time.perf_counter() - began) >= at_least:
            return passed / calls


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0 and at most 1")
    return value


if __name__ == "__main__":
    start(main)
