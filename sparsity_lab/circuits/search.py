"""Find a task's circuits with any finder, polish and prune them further, and return `Circuit` records."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sparsity_lab.circuits.beside_whole import beside_whole
from sparsity_lab.circuits.candidates import Candidate, offer
from sparsity_lab.circuits.circuit import Circuit, Scores, Targeted
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.edge_pruning import prune_edges
from sparsity_lab.circuits.edges import list_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData, score
from sparsity_lab.circuits.exchange import exchange
from sparsity_lab.circuits.failed_search import doubt
from sparsity_lab.circuits.finders import FINDERS, FinderConfig
from sparsity_lab.circuits.finders.finder import Notes
from sparsity_lab.circuits.frozen import frozen_values
from sparsity_lab.circuits.nested import nest
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.restoration import restored_nodes
from sparsity_lab.circuits.token_pruning import prune_tokens
from sparsity_lab.circuits.tying import both, query_key_partners
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.transformer import Transformer


def make_evaluator(
    model: Transformer, means_n: Tensor, data: TaskData, finder: FinderConfig, pruning: PruningConfig
) -> CircuitEvaluator:
    """Build the evaluator for a run's config; it has fixed restored subsets if the finder restores nodes.

    `means_n` are the means over text; `pruning.ablation` decides what dropped nodes are frozen at.
    """
    most = finder.restored_share
    generator = torch.Generator().manual_seed(derive_seed(pruning.seed, "restored for selection"))
    restored = [restored_nodes(len(means_n), share * most, generator) for share in (0.3, 0.6, 1) if most]
    return CircuitEvaluator(
        model=beside_whole(model, pruning.ablation == "other_prompt", pruning.freeze_norm),
        means_n=frozen_values(pruning.ablation, model, means_n, data.train),
        data=data,
        selection=pruning.selection,
        restored=tuple(restored),
        closed=pruning.closed,
        partner_n=query_key_partners(model.config) if pruning.tied_query_key else None,
    )


class Unsearched(NamedTuple):
    """Why no circuit is searched for: a status of `results.record.TaskResult`, and the reason in words."""

    status: Literal["not_learned", "empty_solves"]
    reason: str


def unsearched(evaluator: CircuitEvaluator, unpruned: Scores, target: float) -> Unsearched | None:
    """Return why a search for circuits at `target` nats would mean nothing; None if it means something.

    `unpruned`: the whole model's scores on the selection pairs.
    """
    if unpruned.raw_loss > target:
        return Unsearched(
            "not_learned", f"the whole model's loss, {unpruned.raw_loss:.3f}, is above {target:g} nats"
        )
    empty = evaluator.select_loss(torch.zeros_like(evaluator.means_n, dtype=torch.bool))
    if empty <= target:
        return Unsearched("empty_solves", f"the empty circuit's loss is {empty:.3f}, at most {target:g} nats")
    return None


class Search(NamedTuple):
    """The circuits found, by ascending target, the number of further searches, and the reasons for them."""

    circuits: list[Circuit]
    retries: int
    retried_because: str


def find_circuits(
    evaluator: CircuitEvaluator,
    task: str,
    model_name: str,
    finder: FinderConfig,
    pruning: PruningConfig,
    earlier: Sequence[Circuit] = (),
) -> Search:
    """Find one circuit for each target, absolute or relative, that some set of nodes meets.

    `evaluator` must be built by `make_evaluator` from the same `finder` and `pruning`. `earlier` are circuits
    of an earlier search with the same settings that is thought to have failed. The search then goes on with
    other seeds, and returns an earlier circuit where it finds none that is smaller.
    """
    wanted = wanted_targets(evaluator, pruning)
    best, retries, doubts = _search(evaluator, finder, pruning, [one.target for one in wanted], earlier)
    because, circuits = "; ".join(dict.fromkeys(doubts)), []
    for one in wanted:
        if one.target not in best:
            continue
        kept_n, _, notes = best[one.target]
        provenance: Notes = {"method": finder.label, "selection": pruning.selection}
        provenance |= {"ablation": pruning.ablation, **notes, **pruning.changed}
        if retries:
            provenance |= {"retries": retries, "retried_because": because}
        circuit = make_circuit(evaluator, kept_n, task, model_name, one.target, provenance)
        circuit = circuit.model_copy(update=one.model_dump())
        if pruning.edges == "prune":
            circuit = prune_edges(evaluator, circuit)
        if pruning.tokens == "prune":
            circuit = prune_tokens(evaluator, circuit)
        circuits.append(circuit)
    return Search(circuits, retries, because)


def wanted_targets(evaluator: CircuitEvaluator, pruning: PruningConfig) -> list[Targeted]:
    """Return the losses that circuits have to meet, ascending, the absolute ones first.

    A relative target is left out if the circuit without nodes meets it.
    """
    wanted = [Targeted(target=target) for target in pruning.all_targets]
    if pruning.relative_targets:
        everything_n = torch.ones_like(evaluator.means_n, dtype=torch.bool)
        whole, empty = evaluator.select_loss(everything_n), evaluator.select_loss(~everything_n)
        for excess in pruning.relative_targets:
            if whole + excess < empty:
                wanted.append(Targeted(target=whole + excess, target_kind="relative", excess=excess))
    return wanted


def _search(
    evaluator: CircuitEvaluator,
    finder: FinderConfig,
    pruning: PruningConfig,
    wanted: Sequence[float],
    earlier: Sequence[Circuit] = (),
) -> tuple[dict[float, Candidate], int, list[str]]:
    """Return the smallest set found for each loss of `wanted`, the number of further searches, and why.

    A calibrated search counts those of the raw search that it begins with.
    """
    others = sorted({target for target in wanted if target != pruning.target})
    targets = (pruning.target, *others)
    best: dict[float, Candidate] = {}
    first, last, before, doubts = 0, pruning.starts - 1 + pruning.retries, 0, list[str]()
    if earlier:
        first = pruning.starts + int(earlier[0].provenance.get("retries") or 0)
        last = first + max(1, pruning.retries) - 1
        doubts = [str(because)] if (because := earlier[0].provenance.get("retried_because")) else []
        doubts.append("far more nodes than the model's circuits for other tasks")
        for circuit in earlier:
            kept_n = NodeLayout(evaluator.model.config).mask(circuit.nodes)
            offer(best, evaluator, kept_n, circuit.target, dict(circuit.provenance), polished=False)
    elif evaluator.selection == "calibrated":
        # A set that meets the raw target also meets the calibrated one, so calibrated circuits begin there.
        best, before, doubts = _search(replace(evaluator, selection="raw"), finder, pruning, wanted)
        for target, candidate in list(best.items()):
            offer(best, evaluator, candidate.kept_n, target, candidate.notes, pruning.polish)
    for attempt in range(first, last + 1):
        missed, further = pruning.target not in best, max(0, attempt - pruning.starts + 1)
        seed = derive_seed(pruning.seed, "attempt", attempt) if attempt else pruning.seed
        found = FINDERS[type(finder)](evaluator, finder.again(further, missed), targets, seed)
        for target, (kept_n, notes) in found.items():
            more: Notes = {**notes, "attempt": attempt, "nodes_before_polish": int(kept_n.sum())}
            offer(best, evaluator, both(kept_n, evaluator.partner_n), target, more, pruning.polish)
        for tighter, looser in pairwise(sorted(targets)):
            if tighter in best:  # what meets a target meets every looser one
                kept_n, _, notes = best[tighter]
                offer(best, evaluator, kept_n, looser, {**notes, "found_at": tighter}, pruning.polish)
        if attempt + 1 < pruning.starts:
            continue
        sizes = {target: candidate.size for target, candidate in best.items()}
        reason = doubt(sizes, targets, len(evaluator.means_n))
        if (reason is None and not earlier) or attempt == last:
            break
        if reason is not None:
            doubts.append(reason)
    if pruning.exchanges:
        _exchange_all(best, evaluator, pruning.exchanges)
    if pruning.nested:
        best = nest(best, evaluator, pruning.polish)
    return best, before + further, doubts


def _exchange_all(best: dict[float, Candidate], evaluator: CircuitEvaluator, rounds: int) -> None:
    """Exchange nodes of each set, by ascending target; each result is a candidate for the next target."""
    before: tuple[float, Candidate] | None = None
    for target in sorted(best):
        if before is not None:
            tighter, (kept_n, _, notes) = before
            offer(best, evaluator, kept_n, target, {**notes, "found_at": tighter}, polished=True)
        kept_n, _, notes = best[target]
        offer(best, evaluator, exchange(evaluator, kept_n, target, rounds), target, notes, polished=False)
        before = target, best[target]


def make_circuit(
    evaluator: CircuitEvaluator, kept_n: Tensor, task: str, model_name: str, target: float, provenance: Notes
) -> Circuit:
    """Build the record of the circuit that keeps `kept_n`."""
    calibration, select, test = evaluator.scores(kept_n)
    edges_only_b = replace(evaluator, closed=True).logit_difference(kept_n, evaluator.data.test)
    return Circuit(
        task=task,
        model=model_name,
        target=target,
        nodes=NodeLayout(evaluator.model.config).nodes(kept_n),
        edges=list_edges(evaluator.model, kept_n),
        calibration=calibration,
        select=select,
        test=test,
        provenance=provenance,
        closed=evaluator.closed,
        edges_only=score(edges_only_b, evaluator.data.test.label_b, calibration),
    )
