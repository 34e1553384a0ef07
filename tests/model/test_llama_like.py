"""Rotary positions and gated MLPs keep the invariants that the paper's own model keeps."""

from typing import Any

import pytest
import torch
from micro import VOCABULARY, evaluator_of, quick_pruning, random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.edges import count_edges, list_edges
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.config import validate
from sparsity_lab.model.checkpoints import count_weights
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import Record, ablate, with_residuals
from sparsity_lab.model.transformer import Transformer

LIKE: dict[str, Any] = {"gated_mlp": True, "positions": "rotary", "activation": "silu"}
LLAMA = LIKE | {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"}
BOTH = pytest.mark.parametrize("changes", [LLAMA, LIKE], ids=["dense", "thinned"])


@BOTH
def test_s5_no_logit_depends_on_a_later_token_and_each_on_the_order_of_earlier_ones(
    changes: dict[str, Any],
) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(1, 8)
    for position in range(1, 8):
        changed_bt = tokens_bt.clone()
        changed_bt[:, position:] = (changed_bt[:, position:] + 1) % VOCABULARY
        torch.testing.assert_close(model(changed_bt)[:, :position], model(tokens_bt)[:, :position])
        assert not torch.allclose(model(changed_bt)[:, position], model(tokens_bt)[:, position])
    swapped_bt = tokens_bt[:, [1, 0, *range(2, 8)]]
    assert tokens_bt[0, 0] != tokens_bt[0, 1]
    assert not torch.allclose(model(swapped_bt)[:, -1], model(tokens_bt)[:, -1])
    with pytest.raises(ValueError, match="13 tokens, but the context is 12"):
        model(random_tokens(1, 13))


@BOTH
def test_s6_a_tap_that_returns_its_input_changes_nothing(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(3, 9)
    seen: list[Site] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen.append(site)
        assert x.shape[-1] == (16 if site is Site.RESID else model.config.width(site))
        return x

    assert torch.equal(model(tokens_bt), model(tokens_bt, tap))
    attention, mlp = model.config.node_sites[:5], model.config.node_sites[5:]
    assert mlp == (Site.MLP_IN, Site.MLP_GATE, Site.MLP_NEURON, Site.MLP_OUT)
    assert seen == [Site.RESID, *attention, Site.RESID, *mlp] * 2 + [Site.RESID]


@BOTH
def test_one_position_a_row_and_a_later_start_give_the_same_logits(changes: dict[str, Any]) -> None:
    model, tokens_bt, position_b = small_model(**changes), random_tokens(3, 9), torch.tensor([0, 8, 4])
    logits_btv, streams = with_residuals(model, tokens_bt)
    expected_bv = logits_btv[range(3), position_b]
    torch.testing.assert_close(model(tokens_bt, position_b=position_b), expected_bv)
    for boundary, x_btd in streams.items():
        started_bv = model(tokens_bt, position_b=position_b, start=(boundary, x_btd))
        torch.testing.assert_close(started_bv, expected_bv)


@torch.no_grad()
def test_a_score_depends_on_the_distance_alone() -> None:
    """With equal tokens everywhere, attention is as if all positions moved together."""
    model = small_model(**LLAMA)
    query_c, key_c = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    block: Any = model.blocks[0]
    for linear, value_c in ((block.attention.q, query_c), (block.attention.k, key_c)):
        linear.weight.zero_()
        linear.bias.copy_(value_c)
    record = Record({Site.ATTN_PATTERN})
    model(random_tokens(1, 9), record)
    log_hqt = record.values[Site.ATTN_PATTERN, 0][0].log()
    steps = [(log_hqt[:, q, q] - log_hqt[:, q, q - 2]) for q in range(2, 9)]
    for step in steps:
        torch.testing.assert_close(step, steps[0], rtol=0, atol=1e-4)
    assert steps[0].abs().min() > 1e-3


def test_s8_each_weight_of_both_input_matrices_is_one_edge() -> None:
    model = small_model(**LLAMA)
    everything = torch.ones(NodeLayout(model.config).size, dtype=torch.bool)
    inputs = 3 * 16 * 24  # up, gate and down
    assert (
        count_edges(model, everything)
        == 2 * (4 * 16 * 16 + inputs)
        == len({(edge.source, edge.target) for edge in list_edges(model, everything)})
    )
    block: Any = model.blocks[1]
    block.mlp.gate.weight[3, 5] = 0
    assert count_edges(model, everything) == 2 * (4 * 16 * 16 + inputs) - 1
    pair = [Node(layer=1, site="mlp_in", channel=5), Node(layer=1, site="mlp_gate", channel=4)]
    (edge,) = list_edges(model, NodeLayout(model.config).mask(pair))
    assert edge.weight == block.mlp.gate.weight[4, 5]


@BOTH
@torch.no_grad()
def test_a_compacted_circuit_computes_the_same(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(3, 9)
    layout = NodeLayout(model.config)
    generator = torch.Generator().manual_seed(0)
    kept_n = torch.rand(layout.size, generator=generator) < 0.5
    values_n = torch.randn(layout.size, generator=generator)
    tap = ablate(layout, kept_n, values_n)
    for closed in (False, True):
        expected = close(model, kept_n)(tokens_bt, tap) if closed else model(tokens_bt, tap)
        torch.testing.assert_close(compact(model, kept_n, values_n, closed)(tokens_bt, tap), expected)


def test_s7_the_ends_of_a_circuit() -> None:
    evaluator = evaluator_of(small_model(**LLAMA), quick_pruning())
    whole_n = torch.ones_like(evaluator.means_n, dtype=torch.bool)
    batch = evaluator.data.test
    expected_bv = evaluator.model(batch.tokens_bt)[torch.arange(len(batch.last_b)), batch.last_b]
    expected_b = expected_bv.gather(1, batch.answers_b2) @ torch.tensor([1.0, -1.0])
    torch.testing.assert_close(evaluator.logit_difference(whole_n, batch), expected_b)
    empty_b = evaluator.logit_difference(~whole_n, batch)
    torch.testing.assert_close(empty_b, empty_b[:1].expand(len(empty_b)))


def test_the_config_counts_its_weights_and_hides_later_fields_at_their_defaults() -> None:
    model = small_model(**LLAMA)
    assert model.config.weight_count(VOCABULARY) == count_weights(model)[0]
    plain = Transformer(ModelConfig(n_layer=1, d_model=16, n_ctx=8), 11).config.model_dump(mode="json")
    assert not {"gated_mlp", "rotary_theta", "rotary_scaling"} & plain.keys()
    scaled = model.config.model_dump(mode="json") | {"rotary_scaling": {"kind": "linear", "factor": 2.0}}
    config = validate(ModelConfig, scaled)
    assert validate(ModelConfig, config.model_dump(mode="json")) == config
    assert config.model_dump(mode="json")["gated_mlp"] is True
