"""Find a task's circuits with any finder, polish them, prune their edges, and return `Circuit` records."""

from dataclasses import replace

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.discretisation import polish
from sparsity_lab.circuits.edge_pruning import prune_edges
from sparsity_lab.circuits.edges import list_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData, score
from sparsity_lab.circuits.finders import FINDERS, FinderConfig
from sparsity_lab.circuits.finders.finder import Notes
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.restoration import restored_nodes
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.transformer import Transformer


def make_evaluator(
    model: Transformer, means_n: Tensor, data: TaskData, finder: FinderConfig, pruning: PruningConfig
) -> CircuitEvaluator:
    """Build the evaluator for a run's config; it has fixed restored subsets if the finder restores nodes."""
    most = finder.restored_share
    generator = torch.Generator().manual_seed(derive_seed(pruning.seed, "restored for selection"))
    restored = [restored_nodes(len(means_n), share * most, generator) for share in (0.3, 0.6, 1) if most]
    return CircuitEvaluator(model, means_n, data, pruning.selection, tuple(restored), pruning.closed)


def find_circuits(
    evaluator: CircuitEvaluator, task: str, model_name: str, finder: FinderConfig, pruning: PruningConfig
) -> list[Circuit]:
    """Return one circuit for each target that some set of nodes meets, by ascending target.

    `evaluator` must be built by `make_evaluator` from the same `finder` and `pruning`.
    """
    others = [target for target in pruning.all_targets if target != pruning.target]
    found = FINDERS[type(finder)](evaluator, finder, (pruning.target, *others), pruning.seed)
    circuits = []
    for target, (kept_n, notes) in sorted(found.items()):
        polished_n = polish(evaluator, kept_n, target) if pruning.polish else kept_n
        provenance: Notes = {
            "method": finder.label,
            "selection": pruning.selection,
            **notes,
            "nodes_before_polish": int(kept_n.sum()),
        }
        circuit = make_circuit(evaluator, polished_n, task, model_name, target, provenance)
        if pruning.edges == "prune":
            circuit = prune_edges(evaluator, circuit)
        circuits.append(circuit)
    return circuits


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
