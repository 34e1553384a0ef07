"""Rankings of nodes and edges in the form of EAP-IG and MIB, read and written."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_run import random_model, write_run

from sparsity_lab.circuits.circuit import Calibration, Circuit, Edge, Node, Scores
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.importers.eap_graph import Ranking, Scored, graph_of, is_ranking, read_ranking
from sparsity_lab.model.config import ModelConfig

CONFIG = ModelConfig(n_layer=2, d_model=8, n_ctx=8, d_head=4, d_mlp=6)  # two heads


def read(folder: Path, saved: Any) -> Ranking:
    (folder / "graph.json").write_text(json.dumps(saved))
    return read_ranking(folder / "graph.json", CONFIG)


def test_heads_mlps_and_channels_become_nodes(tmp_path: Path) -> None:
    nodes = {
        "input": {"in_graph": True},
        "a1.h1": {"in_graph": True, "score": -2.5},
        "m0": 3,
        "0.attn_in.5": {"score": float("nan"), "in_graph": False},
        "0.mlp.post_act.2": True,
        "logits": {"in_graph": True},
    }
    found = read(tmp_path, {"cfg": {"n_layers": 2, "n_heads": 2, "d_model": 8}, "nodes": nodes})
    head = {(node.layer, node.site, node.channel) for node in found.groups["a1.h1"]}
    assert head == {(1, site, channel) for site in ("attn_q", "attn_k", "attn_v") for channel in range(4, 8)}
    assert [node.channel for node in found.groups["m0"]] == list(range(6))
    assert found.groups["0.attn_in.5"] == (Node(layer=0, site="attn_in", channel=5),)
    assert found.groups["0.mlp.post_act.2"] == (Node(layer=0, site="mlp_neuron", channel=2),)
    assert found.groups["input"] == ()
    assert found.nodes["a1.h1"] == Scored(-2.5, True)
    assert found.nodes["m0"] == Scored(3.0, None)
    assert found.nodes["0.attn_in.5"] == Scored(None, False)
    assert found.nodes["0.mlp.post_act.2"] == Scored(None, True)


def test_a_node_without_a_score_has_the_largest_of_its_edges(tmp_path: Path) -> None:
    edges = {
        "input->a0.h0<q>": {"score": 0.5, "in_graph": False},
        "a0.h0->m0": {"score": -2.0, "in_graph": True},
        "m0->logits": {"score": 1.0, "in_graph": False},
    }
    found = read(tmp_path, {"nodes": {"m0": {"score": 9.0, "in_graph": False}}, "edges": edges})
    assert found.nodes["a0.h0"] == Scored(-2.0, True)
    assert found.nodes["m0"] == Scored(9.0, False)
    assert not found.edges


def test_edges_between_channels_stay_edges(tmp_path: Path) -> None:
    found = read(tmp_path, {"edges": {"0.attn_in.1->0.attn_q.2": 0.5}})
    ends = (Node(layer=0, site="attn_in", channel=1), Node(layer=0, site="attn_q", channel=2))
    assert found.edges == {ends: Scored(0.5, None)}


def test_neurons_say_which_channels_no_head_of_a_layer_writes(tmp_path: Path) -> None:
    first, second = ([channel in kept for channel in range(8)] for kept in ((0, 1), (1, 2, 3)))
    found = read(tmp_path, {"nodes": {"a0.h0": {"neurons": first}, "a0.h1": {"neurons": second}}})
    assert found.dropped == {Node(layer=0, site="attn_out", channel=channel) for channel in range(4, 8)}


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ([1], "allowed: one JSON object with nodes or edges"),
        ({"nodes": [1]}, "allowed: one JSON object with nodes or edges"),
        ({"nodes": {"a2.h0": 1}}, r"nodes.a2.h0: not in this model of 2 layers and 2 heads"),
        ({"nodes": {"a0.h2": 1}}, r"nodes.a0.h2: not in this model"),
        ({"nodes": {"m2": 1}}, r"nodes.m2: not in this model"),
        ({"nodes": {"0.attn_in.8": 1}}, r"nodes.0.attn_in.8: not in this model"),
        ({"nodes": {"0.attn_x.8": 1}}, r"nodes.0.attn_x.8: allowed: aLAYER.hHEAD, mLAYER"),
        ({"nodes": {"x\x07": 1}}, r"nodes.x\\x07: allowed: aLAYER.hHEAD"),
        ({"nodes": {"m0": "much"}}, r"nodes.m0: 'much': allowed: a number, true, false"),
        ({"nodes": {"m0": float("inf")}}, r"nodes.m0: inf: allowed: a number"),
        (
            {"nodes": {"m0": {"score": 1, "in_graph": "yes"}}},
            r"nodes.m0.in_graph: 'yes': allowed: true, false",
        ),
        ({"nodes": {"m0": {"neurons": [True]}}}, r"nodes.m0.neurons: allowed: a list of 8 booleans"),
        ({"edges": {"m0": 1}}, r"edges.m0: allowed: SOURCE->TARGET"),
        ({"cfg": {"n_layers": 12}, "nodes": {"m0": 1}}, r"cfg.n_layers: 12: the model has 2"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, saved: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read(tmp_path, saved)
    assert str(caught.value).isprintable()


def test_a_circuit_as_a_graph_of_heads_and_mlps_by_hand() -> None:
    def node(layer: int, site: str, channel: int) -> Node:
        return Node(layer=layer, site=site, channel=channel)

    # head 1 of layer 0 reads channel 3 as a value and writes channel 5, which the MLP of layer 1 reads
    ends = [
        (node(0, "attn_in", 3), node(0, "attn_v", 6)),
        (node(0, "attn_v", 6), node(0, "attn_out", 5)),
        (node(1, "mlp_in", 5), node(1, "mlp_neuron", 0)),
        (node(1, "mlp_neuron", 0), node(1, "mlp_out", 2)),
    ]
    scores = Scores(raw_loss=0.1, selection_loss=0.1, accuracy=1.0)
    circuit = Circuit(
        task="t",
        model="m",
        target=0.15,
        nodes=tuple(dict.fromkeys(end for edge in ends for end in edge)),
        edges=tuple(Edge(source=source, target=target, weight=1.0) for source, target in ends),
        calibration=Calibration(scale=1.0, shift=0.0),
        select=scores,
        test=scores,
        provenance={},
    )
    graph = graph_of(circuit, CONFIG)
    assert {name for name, edge in graph["edges"].items() if edge["in_graph"]} == {
        "input->a0.h1<v>",
        "input->m1",
        "a0.h1->m1",
        "input->logits",
        "a0.h1->logits",
        "m1->logits",
    }
    assert graph["edges"]["a0.h1->m1"]["score"] == 1.0
    assert "m1->a1.h0<q>" not in graph["edges"]  # attention comes first in a layer
    assert {name for name, found in graph["nodes"].items() if found["in_graph"]} == {
        *("input", "a0.h1", "m1", "logits")
    }
    assert graph["nodes"]["a0.h1"]["neurons"] == [channel == 5 for channel in range(8)]
    assert len(graph["edges"]) == 2 * 6 + 2 + 1 + 2 * (1 + 6 + 1 + 1) + 1 * (6 + 1 + 1) + 2 * (1 + 1) + 1


def test_a_written_graph_is_read_back(tmp_path: Path) -> None:
    _, circuit = write_run(tmp_path / "run")
    config = random_model().config
    write_json(tmp_path / "mib.json", graph_of(circuit, config))
    found = read_ranking(tmp_path / "mib.json", config)
    kept = {node for name, one in found.nodes.items() if one.in_graph for node in found.groups[name]}
    own = {edge.source for edge in circuit.edges if edge.source.site in ("attn_v", "mlp_neuron")}
    assert own <= kept
    assert not is_ranking(circuit.model_dump(mode="json"))
