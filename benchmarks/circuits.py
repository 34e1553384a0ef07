"""Time the circuit search of a finished run: find all its circuits again, one task at a time on one thread.

    python -m benchmarks.circuits runs/single/NAME [--out runs/bench]

Writes circuits.csv with one row per task.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.training import write_table
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.results.record import read_record
from sparsity_lab.stages.circuits import explain_task
from sparsity_lab.stages.context import ModelContext

log = logging.getLogger(__name__)

COLUMNS = ("task", "status", "nodes", "edges", "seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the results")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        rows = measure_circuits(options.run)
    except UserError as error:
        parser.error(str(error))
    write_table(COLUMNS, rows, options.out / "circuits.csv")
    return 0


def measure_circuits(run: Path) -> list[dict[str, Any]]:
    """Return one row per task of a finished run: the circuit's size at the main target, and the seconds.

    One task runs an extra time first, so that no row includes compilation.

    Raises:
        UserError: this version cannot read the run's record, config or model.
    """
    record = read_record(run)
    if renamed := renamed_in_config(record.config):
        raise UserError(f"{run}: a run of an older version: " + "; ".join(renamed))
    config = validate(RunConfig, record.config, str(run))
    prepare_processor(1, config.kernels)
    folder = RunFolder(run)
    context = ModelContext.of(config, folder.tokens, folder.model, run)
    context.load()
    names = [task.task for task in record.tasks]
    rows: list[dict[str, Any]] = []
    compiled = [task.task for task in record.tasks if task.curve] or names
    for name in [compiled[0], *names]:
        began = time.perf_counter()
        result, _ = explain_task(
            config, name, context.tokenizer, context.model, context.means_n, record.stages["model"]
        )
        seconds = time.perf_counter() - began
        main_point = result.at(config.pruning.target)
        nodes, edges = (main_point.nodes, main_point.edges) if main_point else ("", "")
        values = (name, result.status, nodes, edges, round(seconds, 1))
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        log.info("%s: %s, %s edges, %.1f s", name, result.status, edges or "no", seconds)
    return rows[1:]


if __name__ == "__main__":
    sys.exit(main())
