"""Causal attention with a sink: a learned logit per head in the softmax's denominator, without a value."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparsity_lab.kernels.cpu.attention import attend, attend_back
from sparsity_lab.kernels.cpu.parallel_for import threads_for


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


def causal_attention(
    q_bhqk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor | None, position_b: Tensor | None = None
) -> Tensor:
    """Values mixed by `attention_pattern`, (b, h, query, d_head); by a kernel on a CPU."""
    if position_b is not None:
        return attention_pattern(q_bhqk, k_bhtk, sink_h, position_b) @ v_bhtk
    if q_bhqk.device.type == "cpu" and q_bhqk.dtype in (torch.float32, torch.bfloat16):
        nothing_h = torch.full((q_bhqk.shape[1],), -torch.inf)
        return _Attention.apply(q_bhqk, k_bhtk, v_bhtk, nothing_h if sink_h is None else sink_h)
    if sink_h is None:
        return scaled_dot_product_attention(q_bhqk, k_bhtk, v_bhtk, is_causal=True)
    return attention_pattern(q_bhqk, k_bhtk, sink_h) @ v_bhtk


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor) -> Tensor:
        ctx.shape = q_bhtk.transpose(1, 2).shape  # (b, t, h, k)
        ctx.dtypes = q_bhtk.dtype, k_bhtk.dtype, v_bhtk.dtype
        q_nc, k_nc, v_nc = map(_by_channel, (q_bhtk, k_bhtk, v_bhtk))
        out_nc, bits_hn = torch.empty_like(q_nc), torch.empty(ctx.shape[2], len(q_nc))
        inputs = *_arrays(q_nc, k_nc, v_nc, sink_h), ctx.shape[1]
        heads = ctx.shape[0] * ctx.shape[2]
        attend(threads_for(heads), heads, *inputs, *_arrays(out_nc, bits_hn))
        ctx.save_for_backward(q_nc, k_nc, v_nc, sink_h, out_nc, bits_hn)
        return _by_head(out_nc, ctx.shape, q_bhtk.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_nc, k_nc, v_nc, sink_h, out_nc, bits_hn = ctx.saved_tensors
        results = [torch.empty_like(q_nc) for _ in range(3)]
        dsink_bh = torch.empty(ctx.shape[0], len(sink_h))
        rest = out_nc, bits_hn, _by_channel(grads[0]), *results, dsink_bh
        inputs = *_arrays(q_nc, k_nc, v_nc, sink_h), ctx.shape[1]
        heads = ctx.shape[0] * ctx.shape[2]
        attend_back(threads_for(heads), heads, *inputs, *_arrays(*rest))
        dq, dk, dv = (
            _by_head(result_nc, ctx.shape, dtype)
            for result_nc, dtype in zip(results, ctx.dtypes, strict=True)
        )
        return dq, dk, dv, dsink_bh.sum(0)


def _by_channel(x_bhtk: Tensor) -> Tensor:
    """A head's channels beside the next one's, a row for each position; float32."""
    return x_bhtk.transpose(1, 2).flatten(2).flatten(0, 1).float().contiguous()


def _by_head(x_nc: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return x_nc.to(dtype).view(shape).transpose(1, 2)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]
