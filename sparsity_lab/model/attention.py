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


def attention_pattern(q_bhtk: Tensor, k_bhtk: Tensor, sink_h: Tensor | None) -> Tensor:
    """Causal attention probabilities (b, h, query, key); what the sink takes, a row lacks of 1."""
    time = q_bhtk.shape[-2]
    scores_bhqk = q_bhtk @ k_bhtk.transpose(-1, -2) / q_bhtk.shape[-1] ** 0.5
    future = torch.ones(time, time, dtype=torch.bool, device=q_bhtk.device).triu(1)
    scores_bhqk = scores_bhqk.masked_fill(future, float("-inf"))
    if sink_h is None:
        return scores_bhqk.softmax(-1)
    sink_bhq1 = sink_h.view(1, -1, 1, 1).expand(*scores_bhqk.shape[:3], 1).to(scores_bhqk.dtype)
    return torch.cat([scores_bhqk, sink_bhq1], -1).softmax(-1)[..., :-1]


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


def causal_attention(q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor | None) -> Tensor:
    """Values mixed by `attention_pattern`, (b, h, t, d_head); fused on a CPU."""
    if sink_h is None:
        return scaled_dot_product_attention(q_bhtk, k_bhtk, v_bhtk, is_causal=True)
    if q_bhtk.device.type == "cpu":
        return _SinkAttention.apply(q_bhtk, k_bhtk, v_bhtk, sink_h)
    return attention_pattern(q_bhtk, k_bhtk, sink_h) @ v_bhtk
