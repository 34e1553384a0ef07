"""Attention with a sink: the fused way equals the plain formula, values and gradients."""

import pytest
import torch
from torch import Tensor

from sparsity_lab.model.attention import attention_pattern, causal_attention


def inputs(time: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(time)
    q, k, v = torch.randn(3, 2, 3, time, 4, generator=generator, dtype=dtype)
    sink_h = torch.tensor([-30.0, 0.3, 4.0], dtype=dtype)  # takes nothing, a part, nearly all
    return [x.clone().requires_grad_() for x in (q, k, v, sink_h)]


@pytest.mark.parametrize("time", [1, 2, 7, 33])
def test_fused_attention_with_a_sink_equals_the_pattern_times_the_values(time: int) -> None:
    fused, plain = inputs(time), inputs(time)
    out = causal_attention(*fused)
    q, k, v, sink_h = plain
    expected = attention_pattern(q, k, sink_h) @ v
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-11)


def test_gradients_agree_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(causal_attention, inputs(5))


def test_without_a_sink_it_is_plain_causal_attention() -> None:
    q, k, v, _ = inputs(9)
    expected = attention_pattern(q, k, None) @ v
    torch.testing.assert_close(causal_attention(q, k, v, None), expected, rtol=1e-9, atol=1e-12)


def test_pattern_by_hand() -> None:
    q, k = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    plain = attention_pattern(q, k, None)
    assert plain.tolist() == [[[[1.0, 0.0], [0.5, 0.5]]]]
    with_sink = attention_pattern(q, k, torch.tensor([2.0]).log())  # a sink that weighs as much as two tokens
    torch.testing.assert_close(with_sink, torch.tensor([[[[1 / 3, 0.0], [0.25, 0.25]]]]))


def test_a_row_sums_to_what_the_sink_leaves() -> None:
    q, k, _, sink_h = inputs(6)
    total_bht = attention_pattern(q, k, sink_h).sum(-1)
    torch.testing.assert_close(total_bht[:, 0], torch.ones_like(total_bht[:, 0]))
    assert (total_bht[:, 1:] < 1).all()
