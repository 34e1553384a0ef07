"""Causal attention with a sink on a CPU, using the compiled loops of `attention_heads.py`."""

from typing import Any

import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.attention_heads import attend, attend_back
from sparsity_lab.kernels.cpu.parallel_for import threads_for
from sparsity_lab.kernels.cpu.simd import as_array
from sparsity_lab.kernels.derivative import differentiable_once
from sparsity_lab.model.dispatch import register


def serves(q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor | None) -> bool:
    """Accept float32 and bfloat16 on a CPU."""
    inputs = (q_bhtk, k_bhtk, v_bhtk)
    return all(x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) for x in inputs)


def attention(q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor | None) -> Tensor:
    """Compute `ops.causal_attention` for equally many queries and keys.

    Raises:
        ValueError: queries, keys and values are not of one shape, or there is not a sink for each head.
    """
    if not q_bhtk.shape == k_bhtk.shape == v_bhtk.shape:
        raise ValueError(f"attention of {tuple(q_bhtk.shape)} queries on {tuple(k_bhtk.shape)} keys")
    sink_h = torch.full((q_bhtk.shape[1],), -torch.inf) if sink_h is None else sink_h
    if sink_h.shape != q_bhtk.shape[1:2]:
        raise ValueError(f"{len(sink_h)} sinks, but {q_bhtk.shape[1]} heads")
    return _Attention.apply(q_bhtk, k_bhtk, v_bhtk, sink_h.float())  # a sink may have another type


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, sink_h: Tensor) -> Tensor:
        ctx.shape = q_bhtk.transpose(1, 2).shape  # (b, t, h, k)
        q_nc, k_nc, v_nc = map(_by_channel, (q_bhtk, k_bhtk, v_bhtk))
        out_nc, bits_hn = torch.empty_like(q_nc), torch.empty(ctx.shape[2], len(q_nc))
        inputs = *_arrays(q_nc, k_nc, v_nc, sink_h), ctx.shape[1]
        heads = ctx.shape[0] * ctx.shape[2]
        attend(threads_for(heads), heads, *inputs, *_arrays(out_nc, bits_hn))
        ctx.save_for_backward(q_nc, k_nc, v_nc, sink_h, out_nc, bits_hn)
        return _by_head(out_nc, ctx.shape)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_nc, k_nc, v_nc, sink_h, out_nc, bits_hn = ctx.saved_tensors
        results = [torch.empty_like(x_nc) for x_nc in (q_nc, k_nc, v_nc)]
        dsink_bh = torch.empty(ctx.shape[0], len(sink_h))
        rest = out_nc, bits_hn, _by_channel(grads[0]), *results, dsink_bh
        inputs = *_arrays(q_nc, k_nc, v_nc, sink_h), ctx.shape[1]
        heads = ctx.shape[0] * ctx.shape[2]
        attend_back(threads_for(heads), heads, *inputs, *_arrays(*rest))
        dq, dk, dv = (_by_head(result_nc, ctx.shape) for result_nc in results)
        return dq, dk, dv, dsink_bh.sum(0)


def _by_channel(x_bhtk: Tensor) -> Tensor:
    """Lay out (b, h, t, k) as rows, one per position, with the heads' channels side by side."""
    return x_bhtk.transpose(1, 2).flatten(2).flatten(0, 1).contiguous()


def _by_head(x_nc: Tensor, shape: torch.Size) -> Tensor:
    return x_nc.view(shape).transpose(1, 2)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [as_array(tensor.detach()) for tensor in tensors]


register("attention", serves, attention)
