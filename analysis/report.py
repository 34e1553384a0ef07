"""Write an index page for a sweep: its frontier, its tables, and a page for each task of each run.

    python analysis/report.py runs/width_l0 [--target NATS] [--out DIR]

The folder (SWEEP/report unless --out says otherwise) can be moved or sent as a whole; it needs no network.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from analysis import circuit_page, plot_frontier, program
from analysis.models import Target
from analysis.program import say
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_text
from sparsity_lab.core.program import start
from sparsity_lab.results.record import RunRecord, TaskResult
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.style import plain, short
from sparsity_lab.results.summary import learned
from sparsity_lab.viewer.page import ASSETS, page

FIGURES = {
    "frontier": "Capability against circuit size, one marker per model; lower left is better.",
    "circuit_size_vs_target": "Circuit size against target loss, for the two models of most similar loss.",
    "edges_per_task": "Size of each task's circuit in those two models.",
}
TABLES = {
    "points": "the models",
    "ratios": "dense against sparse at matched loss: nodes, edges, edges after edge pruning",
    "ratios_by_part": "the same, by how well and of which kind the tasks are learned",
    "tasks": "every task of every run",
    "curve": "size against target",
}
ABSENT = {
    "no_circuit": "none found",
    "not_learned": "not learned",
    "not_askable": "not askable",
    "empty_solves": "needs no node",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file: data:"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("sweep", type=Path, help="folder of a sweep's runs")
    parser.add_argument("--target", type=float, default=0.15, help="task loss of the circuits, in nats")
    parser.add_argument("--out", type=Path, help="folder of the report; default: SWEEP/report")
    options = parser.parse_args(arguments)
    out = options.out or options.sweep / "report"
    try:
        runs = read_all(options.sweep, lambda error: say(f"left out: {error}"))
        if not runs:
            raise UserError(f"{options.sweep}: no finished runs here")
        write_text(out / "index.html", report(runs, options.target, out, options.sweep.resolve().name))
    except UserError as error:
        return program.refuse(error)
    say(f"wrote {out / 'index.html'}")
    return 0


def report(runs: Sequence[tuple[Path, RunRecord]], target: float, out: Path, title: str) -> str:
    """Return the index as HTML; write pages and figures to `out`.

    Raises:
        UserError: no circuit was found at `target`.
    """
    records = [record for _, record in runs]
    plot_frontier.report(records, Target(target), out / "frontier", out / "frontier")
    linked = {
        (folder.name, task.task): _write_page(folder, task, out)
        for folder, record in runs
        for task in record.tasks
        if task.curve
    }
    figures = [name for name in FIGURES if (out / "frontier" / f"{name}.svg").exists()]
    tables = [name for name in TABLES if (out / "frontier" / f"{name}.csv").exists()]
    parts = [
        _head(title, runs),
        f'<div class="figures">{"".join(_figure(name) for name in figures)}</div>',
        _models(runs),
        f"<section><h2>Circuits at {target:g} nats</h2>",
        "<p>Edges of each circuit, and those left after edge pruning; each number leads to its page.</p>",
        _circuits(runs, target, linked),
        "</section><section><h2>Tables</h2><ul>",
        *(f'<li><a href="frontier/{name}.csv">{name}.csv</a>: {TABLES[name]}</li>' for name in tables),
        "</ul></section></main></body></html>\n",
    ]
    return "\n".join(parts)


def _write_page(folder: Path, task: TaskResult, out: Path) -> str:
    """Write the page of one task; return its address relative to the index."""
    name = f"{task.task}.html"
    write_text(out / "circuits" / folder.name / name, page(circuit_page.load_view(folder, task.task)))
    return f"circuits/{quote(folder.name)}/{quote(name)}"


def _head(title: str, runs: Sequence[tuple[Path, RunRecord]]) -> str:
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    style += (ASSETS / "report.css").read_text(encoding="utf-8")
    name, seen = escape(plain(title)), len(runs)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{name}</title><style>{style}</style></head>'
        f'<body class="report"><header><h1>{name}</h1>'
        f'<p class="soft">{seen} run{"s" * (seen != 1)}</p></header><main>'
    )


def _figure(name: str) -> str:
    words = escape(FIGURES[name])
    picture = f'<img src="frontier/{name}.svg" alt="{words}">'
    return f"<section><figure>{picture}<figcaption>{words}</figcaption></figure></section>"


def _models(runs: Sequence[tuple[Path, RunRecord]]) -> str:
    rows = []
    for _, record in runs:
        measured = record.metrics
        cells = [f"{measured[name]:.4f}" if name in measured else "–" for name in ("validation/loss",)]
        cells += [
            short(measured[name]) if name in measured else "–" for name in ("model/nonzeros", "model/weights")
        ]
        cells.append(str(len(learned(record.tasks))))
        rows.append(_row("td", [plain(record.name), record.kind, *cells]))
    head = _row(
        "th",
        ["run", "kind", "validation loss (nats per token)", "nonzero weights", "weights", "tasks learned"],
    )
    return f"<section><h2>Models</h2>{_table(head, rows)}</section>"


def _circuits(
    runs: Sequence[tuple[Path, RunRecord]], target: float, linked: dict[tuple[str, str], str]
) -> str:
    tasks = sorted({task.task for _, record in runs for task in record.tasks})
    head = "".join(f"<th>{escape(plain(cell))}</th>" for cell in ["task", *(r.name for _, r in runs)])
    rows = []
    for name in tasks:
        cells = [f"<td>{escape(plain(name))}</td>"]
        for folder, record in runs:
            found = next((task for task in record.tasks if task.task == name), None)
            cells.append(_cell(found, target, linked.get((folder.name, name))))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _table(f"<tr>{head}</tr>", rows)


def _cell(task: TaskResult | None, target: float, address: str | None) -> str:
    if task is None:
        return "<td></td>"
    point = task.at(target)
    words = ABSENT.get(task.status, "none") if point is None else str(point.edges)
    if point is not None and point.pruned_edges is not None:
        words += f" ({point.pruned_edges})"
    if address is None:
        return f'<td class="soft">{words}</td>'
    return f'<td class="number"><a href="{escape(address)}">{words}</a></td>'


def _row(tag: str, cells: Iterable[str]) -> str:
    kind = ("", ' class="number"')
    return (
        "<tr>"
        + "".join(f"<{tag}{kind[i > 0]}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells))
        + "</tr>"
    )


def _table(head: str, rows: Iterable[str]) -> str:
    body = "\n".join(rows)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


if __name__ == "__main__":
    start(main)
