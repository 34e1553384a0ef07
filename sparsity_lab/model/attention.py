"""Causal attention with a sink: a learned logit per head in the softmax's denominator that carries no value.

With out and lse (logsumexp) of plain attention, the sink changes the result only by a factor, and its
gradient is that of plain attention evaluated at the sink's own out and lse, so the fused kernel serves both
ways:

    lse' = log(exp(lse) + exp(sink));  out' = out · exp(lse - lse')
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention_pattern(
    q_bhqk: Tensor, k_bhtk: Tensor, sink_h: Tensor | None, position_b: Tensor | None = None
) -> Tensor:
    """Causal attention probabilities (b, h, query, key); what the sink takes, a row lacks of 1.

    There is a query for each key, or, with `position_b`, one in each row, at that position.
    """
    key_t = torch.arange(k_bhtk.shape[-2], device=k_bhtk.device)
    future_bqt = key_t > (key_t[None, :, None] if position_b is None else position_b[:, None, None])
    scores_bhqt = q_bhqk @ k_bhtk.transpose(-1, -2) / q_bhqk.shape[-1] ** 0.5
    scores_bhqt = scores_bhqt.masked_fill(future_bqt.unsqueeze(1), float("-inf"))
    if sink_h is None:
        return scores_bhqt.softmax(-1)
    sink_bhq1 = sink_h.view(1, -1, 1, 1).expand(*scores_bhqt.shape[:3], 1).to(scores_bhqt.dtype)
    return torch.cat([scores_bhqt, sink_bhq1], -1).softmax(-1)[..., :-1]


class _SinkAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor) -> Tensor:
        out_bhtk, lse_bht = _flash(q_bhtk, k_bhtk, v_bhtk, 0.0, True)
        total_bht = torch.logaddexp(lse_bht, sink_h.to(lse_bht.dtype).view(1, -1, 1))
        out_bhtk = out_bhtk * (lse_bht - total_bht).exp().unsqueeze(-1).to(out_bhtk.dtype)
        ctx.save_for_backward(q_bhtk, k_bhtk, v_bhtk, out_bhtk, total_bht, sink_h)
        return out_bhtk

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_bhtk, k_bhtk, v_bhtk, out_bhtk, total_bht, sink_h = ctx.saved_tensors
        grad_bhtk = grads[0].contiguous()
        dq, dk, dv = _flash_backward(grad_bhtk, q_bhtk, k_bhtk, v_bhtk, out_bhtk, total_bht, 0.0, True)
        taken_bht = (sink_h.to(total_bht.dtype).view(1, -1, 1) - total_bht).exp()
        d_sink_h = -(taken_bht * (grad_bhtk * out_bhtk).sum(-1)).sum((0, 2))
        return dq, dk, dv, d_sink_h.to(sink_h.dtype)


def causal_attention(
    q_bhqk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor | None, position_b: Tensor | None = None
) -> Tensor:
    """Values mixed by `attention_pattern`, (b, h, query, d_head); fused on a CPU."""
    if position_b is not None:
        return attention_pattern(q_bhqk, k_bhtk, sink_h, position_b) @ v_bhtk
    if sink_h is None:
        return scaled_dot_product_attention(q_bhqk, k_bhtk, v_bhtk, is_causal=True)
    if q_bhqk.device.type == "cpu":
        return _SinkAttention.apply(q_bhqk, k_bhtk, v_bhtk, sink_h)
    return attention_pattern(q_bhqk, k_bhtk, sink_h) @ v_bhtk
