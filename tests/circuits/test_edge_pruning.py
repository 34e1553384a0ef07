"""Edges pruned within nodes: what a dropped edge passes, and that the ones a task needs stay."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from micro import PLANTED, evaluator_of, micro_model, planted_model, quick_pruning, small_model

from sparsity_lab.circuits import edge_pruning
from sparsity_lab.circuits.circuit import Edge, Node
from sparsity_lab.circuits.edge_pruning import edge_costs, prune_edges, without_edges
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_circuit
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
    evaluator = evaluator_of(model, quick_pruning())
    planted_n = NodeLayout(model.config).mask(
        Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED
    )
    kept_n = planted_n | planted_n.roll(1)
    circuit = make_circuit(evaluator, kept_n, "question", "planted", 0.15, {"method": "hand"})
    both = prune_edges(evaluator, circuit)
    assert both.model_copy(update={"pruned": None}) == circuit
    assert both.pruned is not None
    left = set(both.pruned.edges)
    assert left < set(circuit.edges)
    assert both.pruned_edges == len(left)
    assert {(edge.source.site, edge.target.site) for edge in left} >= {
        ("attn_in", "attn_v"),
        ("attn_v", "attn_out"),
    }
    assert both.pruned.select.selection_loss <= 0.15
    gone = [edge for edge in circuit.edges if edge not in left]
    narrowed = replace(evaluator, model=without_edges(model, evaluator.means_n, gone))
    assert narrowed.scores(kept_n) == pytest.approx(
        (both.pruned.calibration, both.pruned.select, both.pruned.test)
    )


def test_the_cost_of_an_edge_is_the_slope_along_its_dropping() -> None:
    model = planted_model()
    evaluator = evaluator_of(model, quick_pruning())
    everything = torch.ones_like(evaluator.means_n, dtype=torch.bool)
    edge = Edge(
        source=Node(layer=0, site="attn_v", channel=0),
        target=Node(layer=0, site="attn_out", channel=1),
        weight=4.0,
    )
    (cost,) = edge_costs(evaluator, everything, [edge], [])
    losses = []
    for share in (-0.01, 0.01):  # dropped by a hundredth: the weight and the bias go that far
        changed = copy.deepcopy(model)
        linear: Any = changed.blocks[0].get_submodule("attention.out")
        mean = evaluator.means_n[NodeLayout(model.config).slices[Site.ATTN_V, 0]][0]
        with torch.no_grad():
            linear.bias[1] += share * linear.weight[1, 0] * mean
            linear.weight[1, 0] *= 1 - share
        losses.append(replace(evaluator, model=changed).select_loss(everything))
    assert cost == pytest.approx((losses[1] - losses[0]) / 0.02, rel=0.02)


def test_an_edge_that_is_wrongly_thought_to_hurt_does_not_stop_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = planted_model()
    evaluator = evaluator_of(model, quick_pruning())
    planted_n = NodeLayout(model.config).mask(
        Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED
    )
    circuit = make_circuit(evaluator, planted_n | planted_n.roll(1), "question", "planted", 0.15, {})
    found = prune_edges(evaluator, circuit).pruned
    assert found is not None
    needed, asked = set(found.edges), list[int]()

    def costs(evaluator: Any, kept_n: Any, kept: Any, dropped: Any) -> list[float]:
        asked.append(len(kept))
        return [-10.0 if edge in needed else 0.1 for edge in kept]

    monkeypatch.setattr(edge_pruning, "edge_costs", costs)
    again = prune_edges(replace(evaluator, memory={}), circuit).pruned
    assert again is not None
    assert asked[0] == len(circuit.edges)
    assert set(again.edges) <= needed


def test_a_second_target_gets_the_edges_that_it_would_get_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = evaluator_of(planted_model(), quick_pruning())
    everything_n = torch.ones_like(evaluator.means_n, dtype=torch.bool)
    first, second = (
        make_circuit(evaluator, everything_n, "question", "planted", target, {}) for target in (0.15, 0.3)
    )
    alone = prune_edges(replace(evaluator, memory={}), second)
    prune_edges(evaluator, first)
    built, make = list[int](), edge_pruning.without_edges

    def counted(model: Any, means_n: Any, dropped: Any) -> Any:
        built.append(len(dropped))
        return make(model, means_n, dropped)

    monkeypatch.setattr(edge_pruning, "without_edges", counted)
    assert prune_edges(evaluator, second) == alone
    shared = len(built)
    prune_edges(replace(evaluator, memory={}), second)
    assert shared < len(built) - shared  # the first target's losses and costs were used


def test_a_circuit_that_misses_its_target_or_has_no_edges_keeps_what_it_has() -> None:
    evaluator = evaluator_of(planted_model(), quick_pruning())
    nothing = torch.zeros_like(evaluator.means_n, dtype=torch.bool)
    everything = make_circuit(evaluator, ~nothing, "question", "planted", 1e-9, {})
    assert prune_edges(evaluator, everything).pruned_edges == len(everything.edges) > 0
    assert (
        prune_edges(evaluator, make_circuit(evaluator, nothing, "question", "planted", 0.1, {})).pruned_edges
        == 0
    )


def test_a_model_without_biases_gets_one_where_an_edge_is_dropped() -> None:
    model = small_model(bias=False)
    evaluator = evaluator_of(model, quick_pruning(selection="calibrated"))
    kept_n = torch.ones_like(evaluator.means_n, dtype=torch.bool)
    circuit = make_circuit(evaluator, kept_n, "question", "small", 0.69, {})
    pruned = prune_edges(evaluator, circuit).pruned
    assert pruned is not None
    assert pruned.select.selection_loss <= 0.69
    assert len(pruned.edges) < len(circuit.edges)
    assert model.blocks[0].get_submodule("mlp.up").bias is None
    assert not any(parameter.requires_grad for parameter in model.parameters())
