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

from sparsity_lab.circuits.circuit import Calibration, Circuit, Scores
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.edge_pruning import without_edges
from sparsity_lab.circuits.edges import count_edges
from sparsity_lab.circuits.evaluator import IDENTITY, score
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.standalone import PAIRS_AS_TEXT, beside, load_means, load_pairs
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.record import Check
from sparsity_lab.importers.eap_graph import is_ranking, read_ranking
from sparsity_lab.importers.released_circuit import read_released_circuit
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.opened import Folder, require_same_model
from sparsity_lab.stages.ranked import Sized, circuits_of
from sparsity_lab.stages.scored_evidence import Question, checks_of, named_task
from sparsity_lab.tasks.batch import encode_pairs, logit_difference
from sparsity_lab.tasks.pairs_file import read_pairs
from sparsity_lab.tasks.task import Pair

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

    @torch.no_grad()
    def scores(
        self,
        model: Transformer,
        kept_n: Tensor,
        calibration: Calibration = IDENTITY,
        closed: bool = False,
        select: bool = False,
    ) -> Scores | None:
        """Return the scores of `kept_n` on the test pairs, or on those for selection."""
        if self.means_n is None or self.question is None:
            return None
        batch = self.question.select if select else self.question.test
        tap = ablate(NodeLayout(model.config), kept_n, self.means_n)
        narrow = compact(model, kept_n, self.means_n, closed)
        logit_diff_b = logit_difference(narrow, batch, tap)
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
    if circuit is None:
        rows = _rows_of_ranking(path, opened.model, measure, target)
    else:
        rows, more = _rows_of_circuit(circuit, opened.model, measure, path)
        notes += more
        if evidence is not None and circuit.nodes and measure.means_n is not None and measure.question:
            checks = checks_of(circuit, opened, measure.means_n, measure.question, evidence)
    return Report(
        circuit=str(path),
        kind=kind,
        model=str(opened.path),
        task=path.stem if circuit is None else circuit.task,
        target=target if circuit is None else circuit.target,
        pairs=0 if measure.question is None else len(measure.question.test.label_b) // 2,
        stated=None if circuit is None else circuit.test,
        rows=tuple(rows),
        checks=checks,
        notes=tuple(notes),
    )


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
    if given is None and circuit is not None:
        given = beside(circuit, path, "frozen")
    if given is not None:
        return load_means(given, opened.model.config)
    return opened.means_n if opened.has_means else None


def _question(path: Path, circuit: Circuit | None, opened: Folder, given: Path | None) -> Question | None:
    """Return the pairs of the file `given`, or those beside the circuit, or None."""
    if given is not None:
        listed, tokenizer = read_pairs(given), opened.tokenizer
        names = sorted({pair.name or given.stem for pair in listed})
        if len(names) > 1:
            wanted = None if circuit is None else circuit.task
            if wanted not in names:
                raise UserError(f"--pairs {given}: tasks {', '.join(names)}; allowed: one, or the circuit's")
            listed = [pair for pair in listed if (pair.name or given.stem) == wanted]
        if tokenizer is None:
            raise UserError(f"--pairs {given}: {opened.path} has no tokenizer")
        by_split = {
            split: [Pair(p.positive, p.negative, p.answers) for p in listed if p.split in (split, None)]
            for split in ("select", "test")
        }
        by_split["test"] = by_split["test"] or [Pair(p.positive, p.negative, p.answers) for p in listed]
        task = named_task(given.stem)
        batches = {split: encode_pairs(task, part, tokenizer) for split, part in by_split.items() if part}
        return Question(batches["test"], batches.get("select", batches["test"]), tuple(by_split["test"]))
    found = None if circuit is None else beside(circuit, path, "pairs")
    if found is None:
        return None
    batches = load_pairs(found, opened.model.vocab_size)
    if "test" not in batches:
        raise UserError(f"{found}: missing: test.tokens")
    texts = found.with_name(PAIRS_AS_TEXT)
    listed = read_pairs(texts) if texts.exists() else []
    pairs = tuple(Pair(p.positive, p.negative, p.answers) for p in listed if p.split == "test")
    return Question(batches["test"], batches.get("select", batches["test"]), pairs)


def _rows_of_circuit(
    circuit: Circuit, model: Transformer, measure: Measure, path: Path
) -> tuple[list[Row], list[str]]:
    """Score the circuit, its pruned edges, its edges alone, the whole model, and the empty circuit."""
    layout, notes = NodeLayout(model.config), list[str]()
    try:
        kept_n = layout.mask(circuit.nodes)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: nodes: {error.args[0]}: no node of this model") from None
    edges = count_edges(model, kept_n)
    if edges != len(circuit.edges):
        notes.append(f"the file lists {len(circuit.edges)} edges; the model has {edges} between these nodes")

    def row(name: str, kept_n: Tensor, calibration: Calibration, closed: bool) -> Row:
        scores = measure.scores(model, kept_n, calibration, closed)
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
        scores = measure.scores(pruned, kept_n, circuit.pruned.calibration, circuit.closed)
        rows.insert(1, Row(name="pruned edges", nodes=rows[0].nodes, edges=len(left), scores=scores))
    return rows, notes


def _rows_of_ranking(path: Path, model: Transformer, measure: Measure, target: float) -> list[Row]:
    """Score the circuits of a ranking. They are closed, as ours are by default (`circuits/closing.py`)."""
    ranking = read_ranking(path, model.config)
    can_score = measure.means_n is not None and measure.question is not None

    def meets(sized: Sized) -> bool:
        scores = measure.scores(sized.model, sized.kept_n, closed=True, select=True)
        return scores is not None and scores.raw_loss <= target

    means_n = torch.zeros(NodeLayout(model.config).size) if measure.means_n is None else measure.means_n
    return [
        Row(
            name=sized.name,
            nodes=int(sized.kept_n.sum()),
            edges=sized.edges,
            scores=measure.scores(sized.model, sized.kept_n, closed=True),
        )
        for sized in circuits_of(ranking, model, means_n, meets if can_score else None)
    ]
