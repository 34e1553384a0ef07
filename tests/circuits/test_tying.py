"""Tied masks: a query channel and its key channel are kept or dropped together."""

from typing import Any

import torch
from micro import evaluator_of, question, quick_masks, quick_pruning, small_model

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.mask_learning import learn_masks
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.circuits.tying import average, both, query_key_partners
from sparsity_lab.model.sites import Site


def test_partners() -> None:
    model = small_model()
    layout, partner_n = NodeLayout(model.config), query_key_partners(model.config)
    for index, node in enumerate(layout.nodes(torch.ones(layout.size, dtype=torch.bool))):
        site = {"attn_q": "attn_k", "attn_k": "attn_q"}.get(node.site, node.site)
        other_n = layout.mask([Node(layer=node.layer, site=site, channel=node.channel)])
        assert other_n.nonzero().item() == partner_n[index]


def test_gates_of_partners_are_learned_as_one() -> None:
    model, batch = small_model(), question(48)
    means_n, partner_n = mean_activations(model, [batch.tokens_bt]), query_key_partners(model.config)
    config = quick_masks(steps=20, pairs=8)
    tied = learn_masks(model, means_n, batch, config, 0, True, partner_n).tau_n
    assert torch.equal(tied, tied[partner_n])
    free = learn_masks(model, means_n, batch, config, 0, True).tau_n
    assert not torch.equal(free, free[partner_n])


def test_a_set_is_reduced_to_whole_pairs() -> None:
    model = small_model()
    layout, partner_n = NodeLayout(model.config), query_key_partners(model.config)
    query, key = layout.slices[Site.ATTN_Q, 0].start, layout.slices[Site.ATTN_K, 0].start
    kept_n = torch.ones(layout.size, dtype=torch.bool)
    kept_n[query] = False
    assert (~both(kept_n, partner_n)).nonzero().flatten().tolist() == [query, key]
    assert both(kept_n, None) is kept_n
    x_n = torch.zeros(layout.size)
    x_n[key] = 2.0
    assert average(x_n, partner_n)[[query, key]].tolist() == [1.0, 1.0]


def test_circuits_hold_both_channels_of_a_product() -> None:
    """A random model's answers need many nodes, so that the search keeps some of its attention."""

    def search(**changes: Any) -> list[tuple[set[tuple[int, int]], set[tuple[int, int]]]]:
        model, pruning = small_model(3), quick_pruning(target=0.6, targets=(0.6,), retries=0, **changes)
        evaluator = evaluator_of(model, pruning)
        circuits = find_circuits(evaluator, "random", "random", quick_masks(), pruning).circuits
        return [
            tuple(  # type: ignore[misc]
                {(node.layer, node.channel) for node in circuit.nodes if node.site == site}
                for site in ("attn_q", "attn_k")
            )
            for circuit in circuits
        ]

    tied, free = search(tied_query_key=True), search()
    assert tied
    assert all(queries == keys and queries for queries, keys in tied)
    assert any(queries != keys for queries, keys in free)
