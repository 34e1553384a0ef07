"""Edges pruned within nodes: what a dropped edge passes, and that the ones a task needs stay."""

import pytest
import torch
from micro import PLANTED, micro_model, planted_model, question, quick_pruning, random_tokens

from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.circuits.circuit import Edge, Node
from sparsity_lab.circuits.evaluator import TaskData, make_circuit, make_pruner
from sparsity_lab.circuits.finders.edge_pruning import prune_edges, without_edges
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import Site


def test_a_dropped_edge_passes_its_sources_mean() -> None:
    model = micro_model()
    means_n = mean_activations(model, [torch.tensor([[0, 1, 2, 0]])])
    source, target = Node(layer=0, site="mlp_neuron", channel=0), Node(layer=0, site="mlp_out", channel=0)
    changed = without_edges(model, means_n, [Edge(source=source, target=target, weight=3.0)])
    seen: dict[Site, torch.Tensor] = {}

    def tap(site: Site, layer: int, x: torch.Tensor) -> torch.Tensor:
        seen[site] = x
        return x

    changed(torch.tensor([[0, 1, 2]]), tap)
    mean = means_n[NodeLayout(model.config).slices[Site.MLP_NEURON, 0]][0]
    torch.testing.assert_close(seen[Site.MLP_OUT][0, :, 0], (3 * mean).expand(3))
    assert model.blocks[0].get_parameter("mlp.down.weight")[0, 0] == 3


def test_the_edges_that_the_task_needs_stay_and_others_go() -> None:
    model = planted_model()
    layout = NodeLayout(model.config)
    means_n = mean_activations(model, [random_tokens(20, 8)])
    config = quick_pruning(target=0.15, targets=[0.15])
    pruner = make_pruner(model, means_n, TaskData(*[question(48, seed) for seed in (1, 2, 3)]), config)
    planted_n = layout.mask(Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED)
    circuit = make_circuit(pruner, planted_n | planted_n.roll(1), "question", "planted", 0.15, {})
    fewer = prune_edges(pruner, circuit)
    assert fewer.nodes == circuit.nodes
    assert set(fewer.edges) < set(circuit.edges)
    assert {(edge.source.site, edge.target.site) for edge in fewer.edges} >= {
        ("attn_in", "attn_v"),
        ("attn_v", "attn_out"),
    }
    assert fewer.select.calibrated_loss <= 0.15
    assert fewer.provenance["edges_before"] == len(circuit.edges)
    kept = without_edges(model, means_n, [edge for edge in circuit.edges if edge not in set(fewer.edges)])
    assert pruner.select_loss(planted_n | planted_n.roll(1), kept) == pytest.approx(
        fewer.select.calibrated_loss, abs=1e-5
    )
