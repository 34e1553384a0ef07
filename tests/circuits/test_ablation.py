"""Nodes in flat order, their means, and mean ablation: S7 at both ends, and in between by hand."""

from typing import Any

import pytest
import torch
from micro import MICRO, VOCABULARY, micro_model, question, random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.model.sites import NODE_SITES, Site
from sparsity_lab.model.taps import ablate

VARIANTS = [
    {},
    {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"},
    {"bigram": "learned", "positions": "learned"},
    {"positions": "concatenated", "d_pos": 4},
]


def test_layout_by_hand() -> None:
    layout = NodeLayout(MICRO)
    widths = [2, 1, 1, 1, 2, 2, 2, 2]
    assert [group.stop - group.start for group in layout.groups] == widths
    assert [group.site for group in layout.groups] == list(NODE_SITES)
    assert layout.size == 13
    kept_n = torch.zeros(13, dtype=torch.bool)
    kept_n[[1, 4, 8, 12]] = True
    expected = (("attn_in", 1), ("attn_v", 0), ("mlp_in", 1), ("mlp_out", 1))
    assert layout.nodes(kept_n) == tuple(Node(layer=0, site=site, channel=c) for site, c in expected)


@pytest.mark.parametrize("changes", VARIANTS)
def test_nodes_and_mask_are_each_others_inverse(changes: dict[str, Any]) -> None:
    layout = NodeLayout(small_model(**changes).config)
    kept_n = torch.rand(layout.size, generator=torch.Generator().manual_seed(0)) < 0.3
    assert torch.equal(layout.mask(layout.nodes(kept_n)), kept_n)
    assert len(layout.nodes(torch.ones_like(kept_n))) == layout.size


@pytest.mark.parametrize("node", [(2, "attn_in", 0), (0, "attn_in", 16), (0, "mlp_out", -1), (0, "resid", 0)])
def test_a_node_of_another_model_is_refused(node: tuple[int, str, int]) -> None:
    layer, site, channel = node
    with pytest.raises(KeyError):
        NodeLayout(small_model().config).mask([Node(layer=layer, site=site, channel=channel)])


@pytest.mark.parametrize("changes", VARIANTS)
def test_means_are_over_all_positions_of_all_batches(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    batches = [random_tokens(5, 8, seed=1), random_tokens(2, 11, seed=2)]
    layout, seen = NodeLayout(model.config), torch.zeros(0)

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is not Site.RESID:
            here.append(x.flatten(0, 1))
        return x

    rows = []
    for tokens_bt in batches:
        here: list[Tensor] = []
        model(tokens_bt, tap)
        rows.append(torch.cat(here, -1))
    seen = torch.cat(rows)
    assert seen.shape == (5 * 8 + 2 * 11, layout.size)
    torch.testing.assert_close(mean_activations(model, batches), seen.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", VARIANTS)
def test_s7_with_all_nodes_kept_nothing_changes(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(3, 9)
    layout = NodeLayout(model.config)
    everything = torch.ones(layout.size, dtype=torch.bool)
    assert torch.equal(
        model(tokens_bt, ablate(layout, everything, torch.full((layout.size,), 9.0))), model(tokens_bt)
    )


@pytest.mark.parametrize("changes", VARIANTS)
def test_s7_the_empty_circuit_sees_the_last_token_alone(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(VOCABULARY, 9)
    layout = NodeLayout(model.config)
    means_n = mean_activations(model, [tokens_bt])
    nothing = ablate(layout, torch.zeros(layout.size, dtype=torch.bool), means_n)
    tokens_bt[:, -1] = 4
    last_bv = model(tokens_bt, nothing)[:, -1]
    assert torch.equal(last_bv, last_bv[:1].expand_as(last_bv))
    tokens_bt[:, -1] = torch.arange(VOCABULARY)
    last_bv = model(tokens_bt, nothing)[:, -1]
    assert len(last_bv.unique(dim=0)) == VOCABULARY  # and the last token does matter


def test_ablation_by_hand() -> None:
    # attn_out 1 is frozen at -2: [0, 1] ends as (1, -1 - 2), whose RMSNorm reads -3/sqrt 5; neuron 0 at 0.5
    model, layout = micro_model(), NodeLayout(MICRO)
    values_n = torch.zeros(13)
    frozen = [Node(layer=0, site="attn_out", channel=1), Node(layer=0, site="mlp_neuron", channel=0)]
    mask_n = layout.mask(frozen)
    values_n[mask_n] = torch.tensor([-2.0, 0.5])
    seen = {}
    tap = ablate(layout, ~mask_n, values_n)

    def looking(site: Site, layer: int, x: Tensor) -> Tensor:
        seen[site] = tap(site, layer, x)
        return seen[site]

    model(torch.tensor([[0, 1]]), looking)
    torch.testing.assert_close(seen[Site.ATTN_OUT][0], torch.tensor([[0.0, -2.0], [0.0, -2.0]]))
    torch.testing.assert_close(
        seen[Site.MLP_IN][0, 1], torch.tensor([1.0, -3.0]) / 5**0.5, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(seen[Site.RESID][0, 1], torch.tensor([1 + 3 * 0.5, -3.0]))


def test_frozen_values_take_the_activations_type() -> None:
    tap = ablate(NodeLayout(MICRO), torch.zeros(13, dtype=torch.bool), torch.ones(13))
    assert tap(Site.MLP_OUT, 0, torch.zeros(1, 1, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_question_obeys_the_rule_for_tasks() -> None:
    batch = question(20)
    assert batch.tokens_bt[:, -1].unique().tolist() == [5]
    assert torch.equal(batch.tokens_bt[:20, 1:], batch.tokens_bt[20:, 1:])
    assert batch.label_b.double().mean() == 0.5
