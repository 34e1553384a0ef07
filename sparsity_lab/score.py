"""Score a circuit or ranking: `python -m sparsity_lab.score CIRCUIT --model MODEL [--pairs FILE]`.

CIRCUIT is a circuit of this project, a `viz_data.pt` of openai/circuit_sparsity, or a ranking of nodes or
edges as JSON in the form of EAP-IG and MIB. MODEL is a run's folder, an export, or a model's folder. The
program prints sizes, losses and the checks of evidence that apply; `--json` writes the same as JSON.
"""

import argparse
import sys
from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.program import start
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.stages.opened import open_folder
from sparsity_lab.stages.scoring import Report, Row, score_file


def lines_of(report: Report) -> list[str]:
    """Format a report for a terminal."""
    table = [("", "nodes", "edges", "raw loss", "selection loss", "accuracy"), *map(_cells, report.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"{report.circuit} ({report.kind}) in {report.model}",
        f"task {report.task}, target {report.target:g}",
    ]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    if report.pairs:
        lines.append(f"losses in nats, on {report.pairs} pairs")
    if report.stated is not None:
        lines.append(f"in the file: raw loss {report.stated.raw_loss:.4f}")
    for check in report.checks:
        lines.append(f"{check.name}: {check.verdict.replace('_', ' ')}. {check.sentence}")
        lines += [f"  rule: {check.rule}"] if check.rule else []
    return lines + list(report.notes)


def _cells(row: Row) -> tuple[str, ...]:
    sizes = (row.name, str(row.nodes), str(row.edges))
    if row.scores is None:
        return (*sizes, "-", "-", "-")
    accuracy = "-" if row.scores.accuracy is None else f"{row.scores.accuracy:.1%}"
    return (*sizes, f"{row.scores.raw_loss:.4f}", f"{row.scores.selection_loss:.4f}", accuracy)


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Score a circuit, or a ranking of nodes or edges.")
    parser.add_argument("circuit", type=Path, help="a circuit's .json, a viz_data.pt, or a ranking's .json")
    parser.add_argument(
        "--model", type=Path, required=True, help="a run's folder, an export, a model's folder"
    )
    parser.add_argument("--pairs", type=Path, help="JSON Lines: positive, negative, answers, optional split")
    parser.add_argument("--means", type=Path, help="the values of frozen nodes, as means.safetensors")
    parser.add_argument("--target", type=float, default=0.15, help="nats, for the smallest set of a ranking")
    parser.add_argument("--no-evidence", action="store_true", help="sizes and losses alone")
    parser.add_argument(
        "--other-model", action="store_true", help="allow another model than the circuit's own"
    )
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    given = parser.parse_args(arguments)
    try:
        opened = open_folder(given.model)
        prepare_processor(*opened.threads_and_kernels)
        report = score_file(
            given.circuit,
            opened,
            given.pairs,
            given.means,
            given.target,
            given.other_model,
            None if given.no_evidence else EvidenceConfig(),
        )
        if given.json is not None:
            write_json(given.json, report)
    except UserError as error:
        sys.exit(str(error))
    sys.stdout.write("\n".join(lines_of(report)) + "\n")


if __name__ == "__main__":
    start(main)
