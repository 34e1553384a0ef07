"""Render circuits of one task as one HTML page, or one circuit as an SVG figure, with `assets/graph.js`.

The page is self-contained: it holds its data as JSON, its scripts, and dagre for the layout. Its content
policy lists the scripts by hash and blocks everything else. Text from corpora, configs and files is data: it
is escaped here and only inserted as text there (S12). This module does not import torch.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparsity_lab.circuits.circuit import Circuit, Node, Scores
from sparsity_lab.core.errors import UserError
from sparsity_lab.evidence.record import Evidence
from sparsity_lab.results.style import plain
from sparsity_lab.viewer.examples_record import MAX_NODES, Examples

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("dagre.min.js", "graph.js", "panel.js", "page.js")
STYLES = ("graph.css", "page.css")
# a browser function that dagre needs
CLONE = "globalThis.structuredClone ??= (value) => JSON.parse(JSON.stringify(value));"
View = dict[str, Any]


def make_view(
    task: str,
    about: Mapping[str, Any],
    target: float,
    unpruned: Scores | None,
    circuits: Sequence[Circuit],
    examples: Examples | None,
    evidence: Evidence | None,
    d_head: int | None,
    without_evidence: str = "No checks of this circuit were made. In Python, lab.evidence makes them.",
) -> View:
    """Put a page's data together, as plain containers. `target` (nats) is the circuit that is shown first.

    `about` describes the model and its run: name, sweep, loss, nonzeros, weights, commit and command; each
    value may be None. `without_evidence` stands in the place of the evidence where there is none.
    """
    shown = None if examples is None else examples.model_dump(mode="json")
    return {
        "task": task,
        "run": dict(about),
        "main": target,
        "description": shown["description"] if shown else "",
        "d_head": shown["d_head"] if shown else d_head,
        "unpruned": None if unpruned is None else unpruned.model_dump(),
        "circuits": [_circuit(circuit, evidence) for circuit in circuits],
        "examples": shown,
        "evidence": None if evidence is None else evidence.model_dump(mode="json"),
        "without_evidence": without_evidence,
    }


def page(view: View) -> str:
    """Render the page as one file that needs no network."""
    scripts = [_read(name) for name in SCRIPTS]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:"
    return _read("page.html").format(
        policy=escape(policy),
        title=escape(f"{plain(view['task'])} · {plain(view['run']['name'])}"),
        styles=_tags("style", (_read(name) for name in STYLES)),
        licence=_read("dagre.LICENSE").replace("--", "- -"),
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
        style=_read("graph.css"),
        title=title,
    )
    return svg + "\n"


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
        "label": _label(circuit),
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
        "closed": circuit.closed,
        "edges_only": None if circuit.edges_only is None else circuit.edges_only.model_dump(),
        "calibration": circuit.calibration.model_dump(),
        "select": circuit.select.model_dump(),
        "test": circuit.test.model_dump(),
        "provenance": circuit.provenance,
        "effects": [
            {"node": _node(found.node), "drop_effect": found.drop_effect}
            for found in (evidence.nodes if evidence is not None and measured else ())
        ],
    }


def _label(circuit: Circuit) -> str:
    """Return the target in words."""
    if circuit.excess is None:
        return f"{circuit.target:g} nats"
    return f"{circuit.target:.3f} nats (the whole model's loss + {circuit.excess:g})"


def _node(node: Node) -> dict[str, Any]:
    return node.model_dump()


def as_data(value: Any) -> str:
    """Encode JSON for a script element, so that it can neither close the element nor open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tags(tag: str, texts: Iterable[str]) -> str:
    return "\n".join(f"<{tag}>{text}</{tag}>" for text in texts)


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
