"""A forward pass that goes on from a boundary is the rest of the whole one, to the bit."""

from typing import Any

import pytest
import torch
from micro import random_tokens, small_model
from torch import Tensor

from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import with_residuals

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
