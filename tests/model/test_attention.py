"""Attention with a sink: the fused way equals the plain formula, values and gradients."""

import pytest
import torch
from torch import Tensor

from sparsity_lab.model.attention import attention_pattern, causal_attention


def inputs(time: int, d_head: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(time)
    q, k, v = torch.randn(3, 2, 3, time, d_head, generator=generator, dtype=dtype)
    sink_h = torch.tensor([-30.0, 0.3, 4.0], dtype=dtype)  # takes nothing, a part, nearly all
    return [x.clone().requires_grad_() for x in (q, k, v, sink_h)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.04)])
@pytest.mark.parametrize(
    ("time", "d_head"), [(1, 4), (2, 1), (7, 4), (16, 16), (33, 20), (130, 16), (257, 8)]
)
def test_the_kernel_equals_the_pattern_times_the_values(
    time: int, d_head: int, dtype: torch.dtype, tolerance: float
) -> None:
    plain = inputs(time, d_head, dtype)
    kernel = [x.detach().clone().requires_grad_() for x in plain]
    exact = [x.detach().double().requires_grad_() for x in plain]
    kernel[3] = kernel[3].detach().float().requires_grad_()
    out = causal_attention(*kernel)
    q, k, v, sink_h = exact
    expected = attention_pattern(q, k, sink_h) @ v
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    (out * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    for one, other in zip(kernel, exact, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=tolerance, atol=2 * tolerance)


def test_the_kernel_takes_heads_as_they_lie() -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(9, 4, torch.float32))
    expected = causal_attention(q, k, v, sink_h)
    q2, k2, v2 = (torch.stack([x, x], -1)[..., 0] for x in (q, k, v))  # every second number in memory
    assert torch.equal(causal_attention(q2, k2, v2, sink_h), expected)
    assert torch.equal(causal_attention(q[:1], k[:1], v[:1], sink_h), expected[:1])


@pytest.mark.parametrize("large", [1e4, 1e30])
def test_large_scores_leave_one_key(large: float) -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(40, 16, torch.float32))
    out = causal_attention(q * large, k, v, sink_h)
    expected = attention_pattern((q * large).double(), k.double(), sink_h.double()) @ v.double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_is_seen_by_later_queries_alone() -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(40, 16, torch.float32))
    k[:, :, 20] = torch.nan
    out = causal_attention(q, k, v, sink_h)
    assert torch.isfinite(out[:, :, :20]).all()
    assert torch.isnan(out[:, :, 20:]).all()


def test_gradients_agree_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(causal_attention, inputs(5))


def test_without_a_sink_it_is_plain_causal_attention() -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        q, k, v, _ = inputs(9, 4, dtype)
        expected = attention_pattern(q, k, None) @ v
        torch.testing.assert_close(causal_attention(q, k, v, None), expected, rtol=tolerance, atol=tolerance)


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
