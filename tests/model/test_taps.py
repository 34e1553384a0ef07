"""Taps: passes from a boundary, chains, records, and the attention pattern that is shown to whom asks."""

from typing import Any

import pytest
import torch
from micro import SMALL, random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.ops import attention_pattern
from sparsity_lab.model.sites import NODE_SITES, Site
from sparsity_lab.model.taps import Record, ablate, at_site, chain, on_nodes, scale_nodes, with_residuals

VARIANTS: list[dict[str, Any]] = [
    {},
    {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"},
    {"bigram": "learned", "positions": "learned"},
    {"positions": "concatenated", "d_pos": 4},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_from_any_boundary_the_rest_is_the_same_to_the_bit(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(3, 9)
    logits_btv, streams = with_residuals(model, tokens_bt)
    assert list(streams) == [0, 1, 2, 3, 4]
    assert torch.equal(logits_btv, model(tokens_bt))
    last_b = torch.tensor([8, 2, 5])
    for boundary, x_btd in streams.items():
        again_btv, rest = with_residuals(model, tokens_bt, start=(boundary, x_btd))
        assert torch.equal(again_btv, logits_btv)
        assert list(rest) == list(range(boundary, 5))
        assert all(torch.equal(rest[later], streams[later]) for later in rest)
        ends_bv = model(tokens_bt, position_b=last_b, start=(boundary, x_btd))
        torch.testing.assert_close(ends_bv, logits_btv[torch.arange(3), last_b])


def test_nothing_before_the_boundary_is_computed() -> None:
    model, tokens_bt = small_model(), random_tokens(2, 5)
    seen: list[tuple[Site, int]] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen.append((site, layer))
        return x

    model(tokens_bt, tap, start=(3, torch.ones(2, 5, 16)))
    names = ["resid", "mlp_in", "mlp_neuron", "mlp_out", "resid"]
    assert seen == [(Site(name), layer) for name, layer in zip(names, (3, 1, 1, 1, 4), strict=True)]


def test_the_recorded_stream_is_what_the_tap_made_of_it() -> None:
    model, tokens_bt = small_model(), random_tokens(2, 5)

    def double(site: Site, layer: int, x: Tensor) -> Tensor:
        return 2 * x if site is Site.RESID and layer == 2 else x

    plain = with_residuals(model, tokens_bt)[1]
    changed = with_residuals(model, tokens_bt, double)[1]
    assert torch.equal(changed[1], plain[1])
    assert torch.equal(changed[2], 2 * plain[2])
    assert not torch.allclose(changed[3], plain[3])


@pytest.mark.parametrize("boundary", [-1, 5])
def test_a_boundary_that_is_not_there_is_told(boundary: int) -> None:
    with pytest.raises(ValueError, match=rf"boundary {boundary}: there are 0 to 4"):
        small_model()(random_tokens(1, 3), start=(boundary, torch.zeros(1, 3, 16)))


def test_a_chain_passes_on_what_each_tap_returns() -> None:
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    plus, times = (at_site(Site.MLP_OUT, 1, f) for f in (lambda x: x + 1, lambda x: x * 2))
    watch = at_site(Site.MLP_OUT, 1, look)
    x = torch.ones(1, 1, 2)
    assert chain(plus, None, watch, times)(Site.MLP_OUT, 1, x).tolist() == [[[4.0, 4.0]]]
    assert seen[0].tolist() == [[[2.0, 2.0]]]
    assert chain(plus, times)(Site.MLP_OUT, 0, x) is x
    assert chain()(Site.MLP_OUT, 1, x) is x


def test_taps_on_nodes_leave_the_residual_stream_and_patterns_alone() -> None:
    layout = NodeLayout(SMALL)
    zeros_n = torch.zeros(layout.size)
    x = torch.ones(1, 2, 16)
    for tap in (
        ablate(layout, zeros_n > 0, zeros_n),
        scale_nodes(layout, zeros_n, zeros_n),
        on_nodes(layout, lambda x, place: x * 0),
    ):
        assert not tap(Site.MLP_OUT, 1, x).any()
        assert tap(Site.RESID, 1, x) is x
        assert tap(Site.ATTN_PATTERN, 1, x) is x


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_record_holds_the_pattern_of_the_recorded_queries_and_keys(changes: dict[str, Any]) -> None:
    model, tokens_bt = small_model(**changes), random_tokens(3, 9)
    record = Record(tuple(Site))
    logits_btv = model(tokens_bt, record)
    assert torch.equal(logits_btv, model(tokens_bt))  # S6: to the bit, patterns shown or not
    assert record.values.keys() == {
        (site, layer) for site in (*NODE_SITES, Site.ATTN_PATTERN) for layer in (0, 1)
    } | {(Site.RESID, boundary) for boundary in range(5)}
    for layer, block in enumerate(model.blocks):
        q_bhtk, k_bhtk = (
            record.values[site, layer].unflatten(-1, (-1, model.config.d_head)).transpose(1, 2)
            for site in (Site.ATTN_Q, Site.ATTN_K)
        )
        sink_h = block.get_parameter("attention.sink") if model.config.attention_sink else None
        expected = attention_pattern(q_bhtk, k_bhtk, sink_h)
        assert torch.equal(record.values[Site.ATTN_PATTERN, layer], expected)


def test_one_position_has_the_pattern_row_that_it_has_among_all() -> None:
    model, tokens_bt, position_b = small_model(), random_tokens(3, 9), torch.tensor([0, 8, 4])
    every, single = Record({Site.ATTN_PATTERN}), Record({Site.ATTN_PATTERN})
    model(tokens_bt, every)
    model(tokens_bt, single, position_b)
    rows_bht = every.values[Site.ATTN_PATTERN, 1][torch.arange(3), :, position_b]
    torch.testing.assert_close(single.values[Site.ATTN_PATTERN, 1][:, :, 0], rows_bht)
    assert single.values[Site.ATTN_PATTERN, 0].shape == (3, 4, 9, 9)


def test_patterns_are_computed_for_taps_that_ask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counted(*arguments: Any) -> Tensor:
        computed.append(1)
        return attention_pattern(*arguments)

    monkeypatch.setattr("sparsity_lab.model.layers.attention_pattern", counted)
    model, tokens_bt = small_model(), random_tokens(1, 4)
    model(tokens_bt, Record(NODE_SITES))
    model(tokens_bt, chain(Record({Site.RESID}), at_site(Site.MLP_OUT, 0, torch.zeros_like)))
    assert not computed
    model(tokens_bt, chain(Record({Site.RESID}), Record({Site.ATTN_PATTERN})))
    assert len(computed) == 2


def test_a_pattern_cannot_be_changed() -> None:
    class Sharper:
        asks_for_pattern = True

        def __call__(self, site: Site, layer: int, x: Tensor) -> Tensor:
            return x * x if site is Site.ATTN_PATTERN else x

    with pytest.raises(ValueError, match="attn_pattern is read-only"):
        small_model()(random_tokens(1, 4), Sharper())


def test_a_tap_that_does_not_ask_is_not_shown_the_pattern_within_a_chain() -> None:
    seen: list[Site] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen.append(site)
        return x

    small_model()(random_tokens(1, 4), chain(tap, Record({Site.ATTN_PATTERN})))
    assert Site.ATTN_PATTERN not in seen
    assert Site.ATTN_Q in seen
