"""Attention with a sink, in plain PyTorch: by hand, and its derivatives."""

import torch
from torch import Tensor

from sparsity_lab.model.ops import attention_pattern, causal_attention


def inputs(time: int, d_head: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(time)
    q, k, v = torch.randn(3, 2, 3, time, d_head, generator=generator, dtype=dtype)
    sink_h = torch.tensor([-30.0, 0.3, 4.0], dtype=dtype)  # takes nothing, a part, nearly all
    return [x.clone().requires_grad_() for x in (q, k, v, sink_h)]


def test_first_and_second_derivatives_agree_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(causal_attention, inputs(5))
    assert torch.autograd.gradgradcheck(causal_attention, inputs(4))


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
