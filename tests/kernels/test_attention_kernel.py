"""The attention kernel equals the plain formula, values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.attention import attention
from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.ops import attention_pattern, causal_attention


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
    out = attention(*kernel)
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


def test_types_may_differ_and_others_are_left_to_plain_operations() -> None:
    q, k, v, sink_h = inputs(33, 16, torch.float32)
    mixed = [q.detach(), k.detach().bfloat16(), v.detach().bfloat16()]
    tensors = [x.requires_grad_() for x in mixed]
    out = attention(tensors[0], tensors[1], tensors[2], sink_h)
    exact = [x.detach().float().requires_grad_() for x in mixed]
    expected = attention(exact[0], exact[1], exact[2], sink_h)
    assert torch.equal(out, expected)
    out.sum().backward()
    expected.sum().backward()
    for one, other in zip(tensors, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad.to(one.dtype))
    assert kernel_for("attention", q, k, v, sink_h) is attention
    assert kernel_for("attention", q, k, v.double(), sink_h) is None
    assert kernel_for("attention", q, k.half(), v, sink_h) is None


def test_the_kernel_takes_heads_as_they_lie() -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(9, 4, torch.float32))
    expected = attention(q, k, v, sink_h)
    q2, k2, v2 = (torch.stack([x, x], -1)[..., 0] for x in (q, k, v))  # every second number in memory
    assert torch.equal(attention(q2, k2, v2, sink_h), expected)
    assert torch.equal(attention(q[:1], k[:1], v[:1], sink_h), expected[:1])


@pytest.mark.parametrize("large", [1e4, 1e30])
def test_large_scores_leave_one_key(large: float) -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(40, 16, torch.float32))
    out = attention(q * large, k, v, sink_h)
    expected = attention_pattern((q * large).double(), k.double(), sink_h.double()) @ v.double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_is_seen_by_later_queries_alone() -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(40, 16, torch.float32))
    k[:, :, 20] = torch.nan
    out = attention(q, k, v, sink_h)
    assert torch.isfinite(out[:, :, :20]).all()
    assert torch.isnan(out[:, :, 20:]).all()


def test_without_a_sink_a_row_sums_to_one() -> None:
    q, k, v, _ = (x.detach() for x in inputs(9, 4, torch.float32))
    expected = attention_pattern(q, k, None) @ v
    torch.testing.assert_close(attention(q, k, v, None), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(9, 5), (5, 9)])
@pytest.mark.parametrize("operation", [attention, causal_attention])
def test_another_number_of_keys_than_queries_is_told(operation: Any, queries: int, keys: int) -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(9, 4, torch.float32))
    with pytest.raises(ValueError, match="queries"):
        operation(q[:, :, :queries], k[:, :, :keys], v[:, :, :keys], sink_h)
    with pytest.raises(ValueError, match="queries"):
        operation(q, k, v[:, :, :5], sink_h)


def test_another_number_of_sinks_than_heads_is_told() -> None:
    q, k, v, sink_h = (x.detach() for x in inputs(9, 4, torch.float32))
    with pytest.raises(ValueError, match="2 sinks, but 3 heads"):
        attention(q, k, v, sink_h[:2])


def test_a_second_derivative_is_refused() -> None:
    kernel = [x.detach().float().requires_grad_() for x in inputs(9, 4)]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(attention(*kernel).sum(), kernel[0], create_graph=True)
