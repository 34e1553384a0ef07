"""Score a circuit in a file of any kind: sizes, losses on pairs, and the checks of evidence that apply.

Three kinds of file are read: circuits of this project, `viz_data.pt` of openai/circuit_sparsity, and rankings
of nodes or edges in the form of EAP-IG and MIB. Losses need pairs and the values of the frozen nodes. Both
lie beside our own circuits; `pairs` and `means` give them for others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sparsity_lab.circuits.beside_whole import as_searched
from sparsity_lab.circuits.circuit import Calibration, Circuit, Scores
from sparsity_lab.circuits.difference import circuit_difference
from sparsity_lab.circuits.edge_pruning import without_edges
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import IDENTITY, score
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.standalone import beside, load_means
from sparsity_lab.circuits.token_pruning import keep_tokens
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.record import Check
from sparsity_lab.importers.eap_graph import is_ranking, read_ranking
from sparsity_lab.importers.released_circuit import read_released_circuit
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.opened import Folder, require_same_model
from sparsity_lab.stages.ranked import Sized, circuits_of
from sparsity_lab.stages.scored_evidence import checks_of
from sparsity_lab.stages.scored_pairs import Question, question_beside, question_in
from sparsity_lab.tasks.batch import TaskBatch

Kind = Literal["circuit", "released", "ranking"]


class Row(Config):
    """One set of nodes: its size, and its scores on the pairs; null where they cannot be measured."""

    name: str
    nodes: int
    edges: int
    scores: Scores | None


class Report(Config):
    """All that was measured of one file.

    `pairs`: number of pairs that the scores are measured on. `stated`: the scores in the file.
    """

    circuit: str
    kind: Kind
    model: str
    task: str
    target: float
    pairs: int
    stated: Scores | None
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """Scores sets of nodes of one model, as far as the frozen values and the pairs are known."""

    means_n: Tensor | None
    question: Question | None

    def scores(
        self,
        model: Transformer,
        kept_n: Tensor,
        pairs: Literal["scored", "select", "test"] = "scored",
        calibration: Calibration = IDENTITY,
        closed: bool = False,
    ) -> Scores | None:
        """Return the scores of `kept_n` on some of the question's pairs."""
        if self.means_n is None or self.question is None:
            return None
        batch: TaskBatch = getattr(self.question, pairs)
        logit_diff_b = circuit_difference(model, kept_n, self.means_n, batch, closed)
        return score(logit_diff_b, batch.label_b, calibration)


def score_file(
    path: Path,
    opened: Folder,
    pairs: Path | None = None,
    means: Path | None = None,
    target: float = 0.15,
    other_model: bool = False,
    evidence: EvidenceConfig | None = None,
) -> Report:
    """Score the circuit or ranking in the file at `path`.

    `target` (nats) is the loss that the smallest set of a ranking must meet; a circuit has its own.
    `other_model` allows a model other than the one that the circuit was found in. Checks are made if
    `evidence` says how much is asked.

    Raises:
        UserError: a file cannot be read, or does not fit the model.
    """
    circuit, kind = _read(path, opened)
    if circuit is not None and not other_model:
        require_same_model(opened, circuit.model_hash, path)
    measure = Measure(_means(path, circuit, opened, means), _question(path, circuit, opened, pairs))
    notes, checks = list[str](), tuple[Check, ...]()
    if measure.means_n is None:
        notes.append(
            "no losses: the values of frozen nodes are unknown; allowed: a run, an export, --means FILE"
        )
    if measure.question is None:
        notes.append("no losses: there are no pairs; allowed: --pairs FILE")
    elif measure.question.note and (circuit is None or evidence is not None):
        notes.append(measure.question.note)
    if circuit is None:
        rows = _rows_of_ranking(path, opened.model, measure, target)
    else:
        rows, more = _rows_of_circuit(circuit, as_searched(opened.model, circuit), measure, path)
        notes += more
        if evidence is not None and circuit.needs_whole_run:
            notes.append("no checks: none runs the whole model beside the circuit, as its search did")
        elif evidence is not None and circuit.nodes and measure.means_n is not None and measure.question:
            checks = checks_of(circuit, opened, measure.means_n, measure.question, evidence)
    return Report(
        circuit=str(path),
        kind=kind,
        model=str(opened.path),
        task=path.stem if circuit is None else circuit.task,
        target=target if circuit is None else circuit.target,
        pairs=_pairs(measure.question, circuit is None),
        stated=None if circuit is None else circuit.test,
        rows=tuple(rows),
        checks=checks,
        notes=tuple(notes),
    )


def _pairs(question: Question | None, is_ranking: bool) -> int:
    """Number of pairs that the scores in the rows are measured on."""
    if question is None:
        return 0
    return len((question.test if is_ranking else question.scored).label_b) // 2


def _read(path: Path, opened: Folder) -> tuple[Circuit | None, Kind]:
    """Read the circuit in a file of either kind; None for a ranking, which is read later."""
    if path.suffix == ".pt":
        found, _ = read_released_circuit(path, opened.model, opened.path.name, path.parent.name)
        return found, "released"
    saved = read_json(path)
    if is_ranking(saved):
        return None, "ranking"
    return validate(Circuit, saved, str(path)), "circuit"


def _means(path: Path, circuit: Circuit | None, opened: Folder, given: Path | None) -> Tensor | None:
    if circuit is not None and circuit.provenance.get("ablation") == "other_prompt":
        if given is not None:
            raise UserError(
                f"--means {given}: {path}: frozen nodes take the other prompt's values; allowed: none"
            )
        return torch.zeros(NodeLayout(opened.model.config).size)
    if given is None and circuit is not None:
        given = beside(circuit, path, "frozen")
    if given is not None:
        return load_means(given, opened.model.config)
    return opened.means_n if opened.has_means else None


def _question(path: Path, circuit: Circuit | None, opened: Folder, given: Path | None) -> Question | None:
    """Return the pairs of the file `given`, or those beside the circuit, or None."""
    if given is not None:
        return question_in(given, circuit, opened)
    return None if circuit is None else question_beside(circuit, path, opened)


def _rows_of_circuit(
    circuit: Circuit, model: Transformer, measure: Measure, path: Path
) -> tuple[list[Row], list[str]]:
    """Score the circuit, its pruned edges and tokens, its edges alone, the whole model, and no nodes."""
    layout, notes = NodeLayout(model.config), list[str]()
    try:
        kept_n = layout.mask(circuit.nodes)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: nodes: {error.args[0]}: no node of this model") from None
    edges = count_edges(model, kept_n)
    if edges != len(circuit.edges):
        notes.append(f"the file lists {len(circuit.edges)} edges; the model has {edges} between these nodes")

    def row(name: str, kept_n: Tensor, calibration: Calibration, closed: bool) -> Row:
        scores = measure.scores(model, kept_n, calibration=calibration, closed=closed)
        return Row(name=name, nodes=int(kept_n.sum()), edges=count_edges(model, kept_n), scores=scores)

    rows = [
        row("circuit", kept_n, circuit.calibration, circuit.closed),
        row("edges only", kept_n, circuit.calibration, True),
        row("whole model", torch.ones_like(kept_n), IDENTITY, False),
        row("no nodes", torch.zeros_like(kept_n), IDENTITY, circuit.closed),
    ]
    if circuit.pruned is not None and measure.means_n is not None:
        left = set(circuit.pruned.edges)
        dropped = [edge for edge in circuit.edges if edge not in left]
        pruned = without_edges(model, measure.means_n, dropped)
        scores = measure.scores(pruned, kept_n, calibration=circuit.pruned.calibration, closed=circuit.closed)
        rows.insert(1, Row(name="pruned edges", nodes=rows[0].nodes, edges=len(left), scores=scores))
    if circuit.tokens is not None:
        kept_v = torch.zeros(model.vocab_size, dtype=torch.bool)
        if outside := [token for token in circuit.tokens.tokens if not 0 <= token < model.vocab_size]:
            raise UserError(f"{path}: tokens: {outside[0]}: allowed: 0 to {model.vocab_size - 1}")
        kept_v[list(circuit.tokens.tokens)] = True
        reading = keep_tokens(model, kept_v, circuit.provenance.get("ablation") == "zero")
        scores = measure.scores(
            reading, kept_n, calibration=circuit.tokens.calibration, closed=circuit.closed
        )
        rows.insert(1, Row(name="pruned tokens", nodes=rows[0].nodes, edges=rows[0].edges, scores=scores))
    return rows, notes


def _rows_of_ranking(path: Path, model: Transformer, measure: Measure, target: float) -> list[Row]:
    """Score the circuits of a ranking. They are closed, as ours are by default (`circuits/closing.py`)."""
    ranking = read_ranking(path, model.config)
    can_score = measure.means_n is not None and measure.question is not None

    def meets(sized: Sized) -> bool:
        scores = measure.scores(sized.model, sized.kept_n, "select", closed=True)
        return scores is not None and scores.raw_loss <= target

    means_n = torch.zeros(NodeLayout(model.config).size) if measure.means_n is None else measure.means_n
    return [
        Row(
            name=sized.name,
            nodes=int(sized.kept_n.sum()),
            edges=sized.edges,
            scores=measure.scores(sized.model, sized.kept_n, "test", closed=True),
        )
        for sized in circuits_of(ranking, model, means_n, meets if can_score else None)
    ]
