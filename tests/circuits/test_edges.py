"""S8: a circuit's edges are exactly the nonzero weights between kept nodes; by hand, and by counting."""

from typing import Any

import pytest
import torch
from micro import MICRO, micro_model, small_model

from sparsity_lab.circuits.circuit import Edge, Node
from sparsity_lab.circuits.edges import count_edges, edge_matrices, list_edges
from sparsity_lab.circuits.nodes import NodeLayout


def node(name: str) -> Node:
    site, channel = name.split()
    return Node(layer=0, site=site, channel=int(channel))


EDGES = {
    ("attn_in 0", "attn_v 0"): 1.0,
    ("attn_v 0", "attn_out 1"): 2.0,
    ("mlp_in 1", "mlp_neuron 0"): 1.0,
    ("mlp_in 0", "mlp_neuron 1"): 5.0,
    ("mlp_neuron 0", "mlp_out 0"): 3.0,
}


def edges(*pairs: tuple[str, str]) -> set[Edge]:
    return {Edge(source=node(a), target=node(b), weight=EDGES[a, b]) for a, b in pairs}


def test_s8_edges_of_the_micro_model_by_hand() -> None:
    model, layout = micro_model(), NodeLayout(MICRO)
    everything = torch.ones(13, dtype=torch.bool)
    assert set(list_edges(model, everything)) == edges(*EDGES)
    assert count_edges(model, everything) == 5
    assert count_edges(model, ~everything) == 0
    some = [
        node(name)
        for name in ("attn_in 0", "attn_v 0", "attn_out 0", "mlp_in 1", "mlp_neuron 0", "mlp_neuron 1")
    ]
    expected = edges(("attn_in 0", "attn_v 0"), ("mlp_in 1", "mlp_neuron 0"))
    assert set(list_edges(model, layout.mask(some))) == expected
    for source, target in EDGES:
        assert set(list_edges(model, layout.mask([node(source), node(target)]))) == edges((source, target))
        assert count_edges(model, ~layout.mask([node(source)])) == 5 - sum(source in pair for pair in EDGES)


def test_s8_biases_embeddings_and_the_bigram_table_are_no_edges() -> None:
    model: Any = micro_model()
    for parameter in (
        model.embedding.weight,
        model.unembedding.weight,
        model.bigram,
        model.blocks[0].mlp.up.bias,
    ):
        parameter.fill_(7.0)
    assert count_edges(model, torch.ones(13, dtype=torch.bool)) == 5


@pytest.mark.parametrize("changes", [{}, {"positions": "concatenated", "d_pos": 4}, {"n_head": 3}])
def test_s8_edges_listed_and_counted_agree_on_random_circuits(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    generator = torch.Generator().manual_seed(0)
    for _, _, _, weight in edge_matrices(model):
        weight.mul_(torch.rand(weight.shape, generator=generator) < 0.2)
    layout = NodeLayout(model.config)
    for share in (0.0, 0.1, 0.6, 1.0):
        kept_n = torch.rand(layout.size, generator=generator) < share
        listed, nodes = list_edges(model, kept_n), set(layout.nodes(kept_n))
        assert count_edges(model, kept_n) == len(listed) == len(set(listed))
        assert all(edge.source in nodes and edge.target in nodes and edge.weight != 0 for edge in listed)
    total = sum(int(weight.count_nonzero()) for _, _, _, weight in edge_matrices(model))
    assert len(listed) == total > 100
    block: Any = model.blocks[1]
    here = (1, "mlp_neuron", "mlp_out")
    heres = {
        (edge.target.channel, edge.source.channel): edge.weight
        for edge in listed
        if (edge.source.layer, edge.source.site, edge.target.site) == here
    }
    down = block.mlp.down.weight
    assert heres == {(o, i): down[o, i].item() for o, i in down.nonzero().tolist()}
