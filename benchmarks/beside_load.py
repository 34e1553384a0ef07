"""Time a training step beside busy processes, under several ways for OpenMP's threads to wait.

    python -m benchmarks.beside_load [--threads 2] [--widths 64 128 256] [--busy 0 1 2] [--out runs/beside]

1. Each wait policy needs its own process, because OpenMP reads its environment variables when torch is
   loaded. `project` sets nothing: the policy is then the one that `sparsity_lab` chooses.
2. A process times a dense and a sparse step at each width, alone and beside processes that only count.
3. The policies take turns, `--rounds` times. The table has medians.

Writes beside.csv. The absolute speeds depend on the machine; compare the policies and the shares of the idle
speed.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from sparsity_lab.core.processors import WAIT_VARIABLES
from sparsity_lab.core.program import start

POLICIES: dict[str, dict[str, str]] = {
    "libgomp's default": {"GOMP_SPINCOUNT": "300000"},
    "project": {},
    "spin 0": {"GOMP_SPINCOUNT": "0"},
    "spin 100": {"GOMP_SPINCOUNT": "100"},
    "spin 300": {"GOMP_SPINCOUNT": "300"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
KINDS = ("dense", "sparse")
Cell = tuple[int, str, int]  # d_model, kind of step, number of busy processes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES), help="to compare")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256], help="d_model")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--threads", type=int, default=2, help="cores to use")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each policy")
    parser.add_argument("--seconds", type=float, default=0.5, help="minimum length of one timing")
    parser.add_argument("--out", type=Path, default=Path("runs/beside"), help="folder of the table")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    cells = list(product(options.widths, KINDS, options.busy))
    if options.in_this_process:
        print_speeds(cells, options.threads, options.seconds)
        return 0
    command = [sys.executable, "-m", "benchmarks.beside_load", "--in-this-process"]
    for name in ("widths", "busy", "threads", "seconds"):
        value = getattr(options, name)
        command += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    speeds: dict[str, dict[Cell, list[float]]] = {
        policy: {cell: [] for cell in cells} for policy in options.policies
    }
    for _ in range(options.rounds):
        for policy in options.policies:
            found = subprocess.run(
                command, env=environment(policy), stdout=subprocess.PIPE, text=True, check=True
            )
            for cell, speed in zip(cells, json.loads(found.stdout), strict=True):
                speeds[policy][cell].append(speed)
        write(speeds, options.out)
    return 0


def environment(policy: str) -> dict[str, str]:
    """Return this process's environment with the variables of one policy."""
    return {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES} | POLICIES[
        policy
    ]


def print_speeds(cells: Sequence[Cell], threads: int, seconds: float) -> None:
    """Print the tokens per second of each cell as a JSON list."""
    from benchmarks.training import TOKENS, make_step, seconds_a_call
    from sparsity_lab.kernels.machine import prepare_processor

    prepare_processor(threads)
    steps = {(width, kind): make_step(kind, width) for width, kind, _ in cells}
    for step in steps.values():
        step()
        step()  # the first step creates the optimizer's state; kernels for sparse weights load after it
    speeds = []
    for width, kind, busy in cells:
        with busy_processes(busy):
            speeds.append(TOKENS / seconds_a_call(steps[width, kind], seconds))
    json.dump(speeds, sys.stdout)


@contextmanager
def busy_processes(number: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Run `number` processes that each keep one core busy for the length of a `with` block."""
    program = "print('busy', flush=True)\nwhile True: pass"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def write(speeds: Mapping[str, Mapping[Cell, Sequence[float]]], folder: Path) -> None:
    """Write the table so far as beside.csv and print it."""
    columns = ("policy", "d_model", "kind", "busy", "tokens_per_second", "lowest", "highest")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "beside.csv").open("w", newline="", encoding="utf-8") as file:
        for table in (csv.writer(file), csv.writer(sys.stdout)):
            table.writerow(columns)
            for policy, cells in speeds.items():
                for cell, values in cells.items():
                    numbers = (statistics.median(values), min(values), max(values))
                    table.writerow([policy, *cell, *(round(number) for number in numbers)])


if __name__ == "__main__":
    start(main)
