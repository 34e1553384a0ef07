"""Render a task's circuits as one HTML page, or one circuit as an SVG figure, with `page/graph.js`.

The page is self-contained: it holds its data as JSON, its scripts, and dagre for the layout. Its content
policy lists the scripts by hash and blocks everything else. Text from corpora, configs and files is data: it
is escaped here and only inserted as text there (S12).
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from sparsity_lab.circuits.circuit import Circuit, Node, load_circuit
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.evidence.record import EVIDENCE, Evidence, load_evidence
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.results.style import plain
from sparsity_lab.viewer.examples_record import EXAMPLES, MAX_NODES, load_examples

HERE = Path(__file__).parent
SCRIPTS = ("vendor/dagre.min.js", "page/graph.js", "page/panel.js", "page/page.js")
STYLES = ("page/graph.css", "page/page.css")
# a browser function that dagre needs
CLONE = "globalThis.structuredClone ??= (value) => JSON.parse(JSON.stringify(value));"
View = dict[str, Any]


def load_view(run: Path, task: str) -> View:
    """Load the data of a page for one task of a finished run, as plain containers.

    Examples and evidence are None if the run has none.

    Raises:
        UserError: the run or task does not exist, or the task has no circuit.
    """
    record = read_record(run)
    results = {result.task: result for result in record.tasks}
    if task not in results:
        raise UserError(f"--task {task}: not asked in {record.name}; there: {', '.join(results) or 'none'}")
    result = results[task]
    folder = RunFolder(run)
    circuits = [load_circuit(path) for path in folder.circuits(task)]
    if not circuits:
        some = ", ".join(name for name, other in results.items() if other.curve)
        raise UserError(
            f"--task {task}: no circuit in {record.name} ({result.status}: {result.reason}); with one: {some}"
        )
    evidence = _evidence(folder, task)
    examples = folder.examples(task)
    shown = load_examples(examples).model_dump(mode="json") if (examples / EXAMPLES).exists() else None
    return {
        "task": task,
        "run": _about(record),
        "main": record.pruning.target,
        "description": shown["description"] if shown else "",
        "d_head": shown["d_head"] if shown else record.model.d_head,
        "unpruned": None if result.unpruned is None else result.unpruned.model_dump(),
        "circuits": [_circuit(circuit, evidence) for circuit in circuits],
        "examples": shown,
        "evidence": None if evidence is None else evidence.model_dump(mode="json"),
    }


def _evidence(run: RunFolder, task: str) -> Evidence | None:
    path = run.evidence(task) / EVIDENCE
    return load_evidence(path) if path.exists() else None


def _about(record: RunRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "sweep": record.sweep,
        "loss": record.metrics.get("validation/loss"),
        "nonzeros": record.metrics.get("model/nonzeros"),
        "weights": record.metrics.get("model/weights"),
        "commit": record.git_commit,
    }


def _circuit(circuit: Circuit, evidence: Evidence | None) -> dict[str, Any]:
    """Convert a circuit to plain containers; one too large to draw is reduced to its counts.

    An edge is (index of source, index of target, weight, whether edge pruning kept it).
    """
    large = len(circuit.nodes) > MAX_NODES
    index = {node: i for i, node in enumerate(circuit.nodes)}
    measured = evidence is not None and evidence.target == circuit.target and not large
    left = None if circuit.pruned is None else set(circuit.pruned.edges)
    return {
        "target": circuit.target,
        "counts": circuit.counts,
        "nodes": [] if large else [_node(node) for node in circuit.nodes],
        "edges": []
        if large
        else [
            (
                index[edge.source],
                index[edge.target],
                float(f"{edge.weight:.5g}"),
                left is None or edge in left,
            )
            for edge in circuit.edges
        ],
        "pruned": None
        if circuit.pruned is None
        else {"edges": circuit.pruned_edges, "test": circuit.pruned.test.model_dump()},
        "calibration": circuit.calibration.model_dump(),
        "select": circuit.select.model_dump(),
        "test": circuit.test.model_dump(),
        "provenance": circuit.provenance,
        "effects": [
            {"node": _node(found.node), "drop_effect": found.drop_effect}
            for found in (evidence.nodes if evidence is not None and measured else ())
        ],
    }


def _node(node: Node) -> dict[str, Any]:
    return node.model_dump()


def page(view: View) -> str:
    """Render the page as one file that needs no network."""
    scripts = [_read(name) for name in SCRIPTS]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:"
    return _read("page/page.html").format(
        policy=escape(policy),
        title=escape(f"{plain(view['task'])} · {plain(view['run']['name'])}"),
        styles=_tags("style", (_read(name) for name in STYLES)),
        licence=_read("vendor/dagre.LICENSE").replace("--", "- -"),
        data=as_data(view),
        scripts=_tags("script", scripts),
    )


def figure(view: View, target: float | None = None) -> str:
    """Render one circuit as a light-themed SVG, at `target` or the run's main target.

    Raises:
        UserError: the circuit does not exist or is too large, or dukpy is not installed.
    """
    try:
        import dukpy
    except ImportError:
        raise UserError("--svg needs dukpy: pip install 'sparsity_lab[figures]'") from None
    wanted = view["main"] if target is None else target
    targets = [circuit["target"] for circuit in view["circuits"]]
    if wanted not in targets:
        there = ", ".join(f"{value:g}" for value in targets)
        raise UserError(f"--target {wanted}: no circuit of {view['task']} at this target; there: {there}")
    index = targets.index(wanted)
    if not view["circuits"][index]["nodes"]:
        raise UserError(f"--svg: this circuit has more than {MAX_NODES} nodes, too many to draw")
    code = [_read(name).replace('"use strict";', "", 1) for name in SCRIPTS[:2]]
    interpreter = dukpy.JSInterpreter()
    interpreter.evaljs([CLONE, *code, "null"])
    nodes, edges = view["circuits"][index]["counts"]
    pruned = view["circuits"][index]["pruned"]
    left = "" if pruned is None else f" ({pruned['edges']} after edge pruning)"
    title = f"{view['task']}: {nodes} nodes, {edges} edges{left} at {wanted:g} nats"
    svg: str = interpreter.evaljs(
        "const graph = Graph.place(Graph.build(dukpy.view, dukpy.index));"
        "Graph.draw(graph, {style: dukpy.style, title: dukpy.title})",
        view=view,
        index=index,
        style=_read("page/graph.css"),
        title=title,
    )
    return svg + "\n"


def as_data(value: Any) -> str:
    """Encode JSON for a script element, so that it can neither close the element nor open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tags(tag: str, texts: Iterable[str]) -> str:
    return "\n".join(f"<{tag}>{text}</{tag}>" for text in texts)


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
