"""The operations of the forward pass in plain PyTorch, with optional kernels (Gao et al., §2.1).

Every operation first asks `kernel_for`. Without a kernel it runs plain PyTorch, on any device, differentiable
to any order. A kernel gives the same result within floating-point error and is differentiable once.

Shape suffixes: b batch, h heads, q queries, t keys, k d_head, n rows, c channels, i inputs, o outputs,
v vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsity_lab.model.dispatch import kernel_for

IGNORED_TARGET = -100  # positions with this target are left out of the loss, as in PyTorch
_INTEGER = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}


def float_bits(x: Tensor) -> Tensor:
    """View floats as signed integers of the same bits; shares memory if `x` is contiguous."""
    return x.detach().contiguous().view(_INTEGER[x.dtype])


def magnitude_bits(x: Tensor) -> Tensor:
    """Return |x| as integers of the same width and order; NaN is above infinity."""
    bits = float_bits(x)
    return bits & torch.iinfo(bits.dtype).max


def abs_top_k(x: Tensor, k: int) -> Tensor:
    """Keep the k entries of largest magnitude along the last axis and zero the rest.

    The gradient passes only through the kept entries. If k is at least the width, `x` itself is returned. The
    lower index wins ties. NaN counts as larger than infinity, so that it propagates.
    """
    if k >= x.shape[-1]:
        return x
    x_nc = x.reshape(-1, x.shape[-1])
    if kernel := kernel_for("abs_top_k", x_nc, k):
        return kernel(x_nc, k).view(x.shape)
    return torch.where(largest(x_nc, k), x_nc, 0).view(x.shape)


def largest(x_nc: Tensor, k: int) -> Tensor:
    """Return a boolean (n, c) mask of the k largest magnitudes per row."""
    order_nk = magnitude_bits(x_nc).sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return torch.zeros(x_nc.shape, dtype=torch.bool, device=x_nc.device).scatter_(-1, order_nk, True)


def attention_pattern(
    q_bhqk: Tensor, k_bhtk: Tensor, sink_h: Tensor | None, position_b: Tensor | None = None
) -> Tensor:
    """Compute causal attention probabilities (b, h, query, key): softmax(q·k / sqrt(d_head)).

    The sink is a learned logit per head in the softmax's denominator. It has no value, so a row of
    probabilities sums to less than 1. There is one query per key, or, with `position_b`, one per row at that
    position.
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
    """Average the values by `attention_pattern`, giving (b, h, query, d_head).

    Raises:
        ValueError: without `position_b`, queries, keys and values are not of one shape.
    """
    if position_b is not None:
        return attention_pattern(q_bhqk, k_bhtk, sink_h, position_b) @ v_bhtk
    if not q_bhqk.shape == k_bhtk.shape == v_bhtk.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q_bhqk, k_bhtk, v_bhtk))
        raise ValueError(f"attention needs queries, keys and values of one shape, not {shapes}")
    if kernel := kernel_for("attention", q_bhqk, k_bhtk, v_bhtk, sink_h):
        return kernel(q_bhqk, k_bhtk, v_bhtk, sink_h)
    if sink_h is None:
        return F.scaled_dot_product_attention(q_bhqk, k_bhtk, v_bhtk, is_causal=True)
    return attention_pattern(q_bhqk, k_bhtk, sink_h) @ v_bhtk


class Linear(nn.Linear):
    """`nn.Linear` that, in training, may use a kernel for mostly zero weights.

    A frozen weight uses the dense product: listing its nonzeros for each short batch would not pay off.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.bias)

    def product(self, x: Tensor, bias_o: Tensor | None) -> Tensor:
        """Return the layer's output with `bias_o` in place of its own bias; None adds none."""
        trained = self.training and torch.is_grad_enabled() and self.weight.requires_grad
        kernel = kernel_for("linear", x, self.weight, bias_o) if trained else None
        return (kernel or F.linear)(x, self.weight, bias_o)


class FrozenLinear(nn.Module):
    """A linear layer with frozen weight (o, i) and bias, for which a kernel may prepare once."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor) -> None:
        super().__init__()
        self.weight_oi, self.bias_o = weight_oi.detach(), bias_o.detach()
        make = kernel_for("frozen_linear", self.weight_oi)
        self.by_kernel = None if make is None else make(self.weight_oi, self.bias_o)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_oi, self.bias_o) if self.by_kernel is None else self.by_kernel(x)


def unembed(x_btd: Tensor, unembedding: Linear, bigram_vv: Tensor | None, tokens_bt: Tensor) -> Tensor:
    """Compute logits (b, t, v): unembed the normalised residual stream and add the tokens' bigram rows."""
    logits_btv: Tensor = unembedding(x_btd)
    return logits_btv if bigram_vv is None else logits_btv + F.embedding(tokens_bt, bigram_vv)


def unembed_and_compare(
    x_btd: Tensor, unembedding: Linear, bigram_vv: Tensor | None, tokens_bt: Tensor, targets_bt: Tensor
) -> Tensor:
    """Compute the mean cross-entropy, in nats and float32, of `unembed`'s logits at `targets_bt`.

    Targets of -100 are left out of the mean.

    Raises:
        ValueError: the numbers of targets and tokens differ.
        IndexError: a target is outside the vocabulary.
    """
    tokens_n, targets_n = tokens_bt.flatten(), targets_bt.flatten()
    if len(tokens_n) != len(targets_n):
        raise ValueError(f"{len(tokens_n)} tokens, but {len(targets_n)} targets")
    if kernel := kernel_for("cross_entropy", x_btd):
        logits_nv = unembedding.product(x_btd.flatten(0, 1), None)
        return kernel(logits_nv, unembedding.bias, bigram_vv, tokens_n, targets_n)
    logits_btv = unembed(x_btd, unembedding, bigram_vv, tokens_bt)
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_n, ignore_index=IGNORED_TARGET)
