"""Time the circuit search of a finished run: find all its circuits again, one task at a time on one thread.

    python -m benchmarks.circuits runs/single/NAME [--with pruning.closed=false ...] [--out runs/bench]

Writes circuits.csv with one row per task, setting and absolute target, as soon as a task's search has ended.
`--with` names changes to the run's `finder` and `pruning`. Every task is searched with the run's own settings
and with each change by itself, one after the other, and the settings are compared on the tasks that have a
circuit under all of them. A plus sign joins changes: `--with pruning.ablation=zero+pruning.freeze_norm=true`.
To replace a whole section, write YAML: `--with 'finder={kind: attribution, steps: 10}'`. `--base` names
changes that every setting has. With `pruning.edges=prune`, the edges are those left after edge pruning; the
losses are the circuit's before it. With `pruning.tokens=prune`, `tokens` is the number of tokens left, and
`tokens_loss` is the test loss with these alone.
"""

import argparse
import logging
import re
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import yaml

from benchmarks.training import write_table
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.stages.circuits import explain_task
from sparsity_lab.stages.context import ModelContext

log = logging.getLogger(__name__)

SIZES, LOSSES = ("nodes", "edges"), ("test_loss", "edges_only_loss")
OWN = "own"  # the setting of the run itself
SECTIONS = ("finder", "pruning")
COLUMNS = (
    "task",
    "setting",
    "target",
    "status",
    *SIZES,
    *LOSSES,
    "tokens",
    "tokens_loss",
    "searches",
    "seconds",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the results")
    parser.add_argument(
        "--with", nargs="+", dest="changes", default=(), metavar="KEY=VALUE", help="each is a setting"
    )
    parser.add_argument(
        "--base", nargs="+", default=(), metavar="KEY=VALUE", help="changes that every setting has"
    )
    parser.add_argument("--tasks", nargs="+", help="some of the run's tasks, in place of all")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    rows = list[dict[str, Any]]()
    try:
        for row in measure_circuits(options.run, options.changes, options.tasks, options.base):
            rows.append(row)
            write_table(COLUMNS, rows, options.out / "circuits.csv")
    except UserError as error:
        parser.error(str(error))
    for line in means(rows):
        log.info("%s", line)
    return 0


def measure_circuits(
    run: Path, changes: Sequence[str] = (), tasks: Sequence[str] | None = None, base: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield one row per task, setting and absolute target: the circuit's size and losses, and the seconds.

    The seconds are those of one search for all targets. The first setting is the run's own with all changes
    in `base`; each of `changes` is another. One task runs an extra time first, so that no row includes
    compilation.

    Raises:
        UserError: this version cannot read the run's record, config or model, a task is not in the run, or a
            change is not allowed.
    """
    record = read_record(run)
    if unknown := sorted(set(tasks or ()) - {task.task for task in record.tasks}):
        known = ", ".join(task.task for task in record.tasks)
        raise UserError(f"--tasks {' '.join(unknown)}: not in the run; allowed: {known}")
    if renamed := renamed_in_config(record.config):
        raise UserError(f"{run}: a run of an older version: " + "; ".join(renamed))
    config = reduce(changed, base, validate(RunConfig, record.config, str(run)))
    settings = {OWN: config} | {change: changed(config, change) for change in changes}
    prepare_processor(1, config.kernels)
    folder = RunFolder(run)
    context = ModelContext.of(config, folder.tokens, folder.model, run)
    context.load()
    names = [task.task for task in record.tasks if tasks is None or task.task in tasks]
    compiled = [task.task for task in record.tasks if task.task in names and task.curve] or names
    _measure(OWN, config, context, compiled[0], record)
    for name in names:
        for setting in settings.items():
            yield from _measure(*setting, context, name, record)


def changed(config: RunConfig, change: str) -> RunConfig:
    """Return the config with values of `finder` or `pruning` changed, or a whole section replaced.

    A plus sign joins several changes, of which each begins with its key.

    Raises:
        UserError: a change is not KEY=VALUE, not of these sections, or not allowed.
    """
    values = config.model_dump(mode="json")
    values["evidence"]["enabled"], values["steering"] = False, None  # neither is made here
    for one in re.split(rf"\+(?=(?:{'|'.join(SECTIONS)})[.=])", change):
        _change(values, one)
    return validate(RunConfig, values, "--with")


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, written = change.partition("=")
    section, _, name = key.partition(".")
    if not equals or section not in SECTIONS:
        raise UserError(f"--with {change}: allowed: KEY=VALUE, where KEY begins with {' or '.join(SECTIONS)}")
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError:
        raise UserError(f"--with {change}: the value is not readable as YAML") from None
    if name:
        values[section] |= {name: value}
    else:
        values[section] = value


def _measure(
    setting: str, config: RunConfig, context: ModelContext, name: str, record: RunRecord
) -> list[dict[str, Any]]:
    began = time.perf_counter()
    result, circuits = explain_task(
        config, name, context.tokenizer, context.model, context.means_n, record.stages["model"]
    )
    seconds, rows = time.perf_counter() - began, list[dict[str, Any]]()
    tokens = {
        c.asked: (len(c.tokens.tokens), round(c.tokens.test.selection_loss, 4))
        for c in circuits
        if c.tokens is not None and c.excess is None
    }
    for target in config.pruning.all_targets:
        point = result.at(target)
        found: tuple[Any, ...] = ("", "", "", "")
        if point is not None and point.edges_only is not None:
            losses = point.test.selection_loss, point.edges_only.selection_loss
            edges = point.edges if point.pruned_edges is None else point.pruned_edges
            found = (point.nodes, edges, *(round(loss, 4) for loss in losses))
        told = name, setting, target, result.status, found[1] or "no", seconds
        log.info("%s, %s, %g nats: %s, %s edges, %.1f s", *told)
        last = *tokens.get(target, ("", "")), result.retries + 1, round(seconds, 1)
        rows.append(dict(zip(COLUMNS, (name, setting, target, result.status, *found, *last), strict=True)))
    return rows


def means(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line per setting and target: means over the tasks with a circuit in all of them."""
    settings = dict.fromkeys((row["setting"], row["target"]) for row in rows)
    missing = {row["task"] for row in rows if row["edges"] == ""}
    lines = []
    for setting, target in settings:
        chosen = [
            row
            for row in rows
            if (row["setting"], row["target"]) == (setting, target) and row["task"] not in missing
        ]
        if chosen:
            nodes, edges = (geometric_mean(max(1, row[size]) for row in chosen) for size in SIZES)
            test, edges_only = (fmean(row[loss] for row in chosen) for loss in LOSSES)
            apart = max(abs(row["test_loss"] - row["edges_only_loss"]) for row in chosen)
            lines.append(
                f"{setting}, {target:g} nats: {len(chosen)} tasks; geometric means {nodes:.1f} nodes, "
                f"{edges:.1f} edges; "
                f"mean test loss {test:.4f}, edges only {edges_only:.4f}, at most {apart:.4f} apart; "
                f"{sum(row['seconds'] for row in chosen):.0f} s"
            )
    return lines


if __name__ == "__main__":
    start(main)
