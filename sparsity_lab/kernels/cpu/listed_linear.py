"""A linear layer and an embedding for a listed weight, forward and backward by its list alone.

1. The nonzeros among the listed values are gathered, by output, and by input for the backward pass. Both
   products are those of `sparse_linear.py`.
2. The weight's gradient is computed at listed entries only: each is the dot product, over tokens, of one
   output's gradient and one input. A block of tokens is transposed to features first, so that these are
   contiguous. Under autocast to bfloat16 both are rounded to it, as for a dense product, where the
   processor multiplies pairs of bfloat16.
3. When the listing asks for it, the whole gradient is computed instead, by a dense product.

Shapes: t tokens, i inputs, o outputs, n listed entries. The summation order does not depend on threads.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.kernels.cpu.gathered import PAIR_TOKENS, add_products
from sparsity_lab.kernels.cpu.parallel_for import parallel_for
from sparsity_lab.kernels.cpu.row_sums import sum_rows
from sparsity_lab.kernels.cpu.simd import BFLOAT_INSTRUCTIONS, TOKENS, as_array, room_like, transpose
from sparsity_lab.kernels.cpu.sparse_linear import (
    GROUP,
    Nonzeros,
    float32_or_bfloat16,
    require_fit,
    result_type,
    sparse_product,
    transposed,
)
from sparsity_lab.kernels.derivative import differentiable_once
from sparsity_lab.model.dispatch import register
from sparsity_lab.model.listing import Listing, listing_of


def serves(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None) -> bool:
    """Accept a listed weight and float32, or autocast to bfloat16, on a CPU."""
    return x.device.type == "cpu" and result_type(x) is not None and listing_of(weight_oi) is not None


def linear(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None) -> Tensor:
    """Compute `F.linear`, following autocast where enabled. The gradient goes to the listing's values.

    It goes to the weight itself when the listing wants the dense gradient.

    Raises:
        ValueError: input, weight and bias do not fit together.
    """
    listing = listing_of(weight_oi)
    assert listing is not None
    require_fit(x.shape[-1], weight_oi, bias_o)
    x_ti = float32_or_bfloat16(x).reshape(-1, x.shape[-1])
    y_to = _ListedLinear.apply(x_ti, weight_oi, listing.values_n, bias_o, listing, result_type(x))
    return y_to.view(*x.shape[:-1], len(weight_oi))


class _ListedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ti: Tensor,
        weight_oi: Tensor,
        values_n: Tensor,
        bias_o: Tensor | None,
        listing: Listing,
        dtype: torch.dtype,
    ) -> Tensor:
        x_ti = x_ti.contiguous()
        ctx.save_for_backward(x_ti)
        ctx.wants_dense, ctx.dtype = listing.wants_dense, dtype
        ctx.starts, ctx.columns_n = listing.starts.numpy(), listing.columns_n.numpy()
        ctx.rows = Nonzeros(*_nonzeros(ctx.starts, ctx.columns_n, values_n.detach().numpy()))
        return sparse_product(x_ti, ctx.rows, len(weight_oi), bias_o, dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x_ti,), grad_to = ctx.saved_tensors, grads[0].contiguous()
        d_x_ti = d_weight_oi = d_values_n = None
        if ctx.needs_input_grad[0]:
            starts, columns_n, values_n = ctx.rows
            columns = Nonzeros(*transposed(starts, columns_n, values_n, x_ti.shape[1]))
            d_x_ti = sparse_product(grad_to, columns, x_ti.shape[1], None, x_ti.dtype)
        if ctx.wants_dense:
            d_weight_oi = (grad_to.to(ctx.dtype).T @ x_ti.to(ctx.dtype)).float()
        else:
            d_values_n = sampled_product(grad_to, x_ti, ctx.starts, ctx.columns_n, ctx.dtype)
        d_bias_o = sum_rows(grad_to) if ctx.needs_input_grad[3] else None
        return d_x_ti, d_weight_oi, d_values_n, d_bias_o, None, None


def sampled_product(
    grad_to: Tensor, x_ti: Tensor, starts: np.ndarray, columns_n: np.ndarray, dtype: torch.dtype
) -> Tensor:
    """Compute the entries of grad_to.T @ x_ti that the compressed rows list; returns (n) in float32.

    With `dtype` bfloat16 the factors are rounded to it, where the processor has instructions for that.
    """
    d_values_n = torch.zeros(len(columns_n))
    pairs = dtype == torch.bfloat16 and BFLOAT_INSTRUCTIONS
    kind, tokens = (np.empty(0, np.int16), PAIR_TOKENS) if pairs else (np.empty(0, np.float32), TOKENS)
    shares = torch.get_num_threads()  # no more, because each transposes all inputs
    inputs = as_array(grad_to), as_array(x_ti), starts, columns_n, kind, tokens
    _sample(shares, shares, shares, *inputs, d_values_n.numpy())
    return d_values_n


@numba.njit(cache=True)
def _nonzeros(
    starts: np.ndarray, columns_n: np.ndarray, values_n: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop the zeros from compressed rows."""
    new_starts = np.zeros_like(starts)
    # one extra slot: the loop below also writes a zero after the last nonzero
    columns = np.empty(columns_n.size + 1, dtype=np.int32)
    values = np.empty(columns_n.size + 1, dtype=np.float32)
    place = 0
    for row in range(starts.size - 1):
        for n in range(starts[row], starts[row + 1]):
            columns[place], values[place] = columns_n[n], values_n[n]
            place += values_n[n] != 0
        new_starts[row + 1] = place
    return new_starts, columns[:place], values[:place]


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _sample_part(
    first: int,
    last: int,
    shares: int,
    grad_to: np.ndarray,
    x_ti: np.ndarray,
    starts: np.ndarray,
    columns_n: np.ndarray,
    kind: np.ndarray,
    together: int,
    d_values_n: np.ndarray,
) -> None:
    """Compute the shares `first` to `last`, of which each has as many entries, in whole rows.

    `together` tokens are transposed at once, into blocks of the type of `kind`.
    """
    tokens, inputs = x_ti.shape
    begin_row: Any = np.searchsorted(starts[:-1], first * columns_n.size // shares)
    end_row: Any = np.searchsorted(starts[:-1], last * columns_n.size // shares)
    x_it, g_gt = room_like(inputs, together, kind), room_like(GROUP, together, kind)
    for begin in range(0, tokens, together):
        size = min(together, tokens - begin)
        transpose(x_ti, begin, 0, size, inputs, x_it, 0, 0)
        x_it[:, size:] = 0
        g_gt[:, size:] = 0
        for group in range(begin_row, end_row, GROUP):
            count = min(GROUP, end_row - group)
            transpose(grad_to, begin, group, size, count, g_gt, 0, 0)
            for row in range(group, group + count):
                add_products(x_it, columns_n, starts[row], starts[row + 1], g_gt, row - group, d_values_n)


@numba.njit(cache=True, nogil=True)
def _sample(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_sample_part, threads, size, arguments)


def serves_embedding(weight_vd: Tensor) -> bool:
    """Accept a listed weight on a CPU."""
    return weight_vd.device.type == "cpu" and listing_of(weight_vd) is not None


def embed(tokens: Tensor, weight_vd: Tensor) -> Tensor:
    """Compute `F.embedding`; gradients go where those of `linear` go."""
    listing = listing_of(weight_vd)
    assert listing is not None
    found: Tensor = _ListedEmbedding.apply(tokens, weight_vd, listing.values_n, listing)
    return found


class _ListedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight_vd: Tensor, values_n: Tensor, listing: Listing) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.wants_dense, ctx.shape = listing.wants_dense, weight_vd.shape
        ctx.starts, ctx.columns_n = listing.starts.numpy(), listing.columns_n.numpy()
        return F.embedding(tokens, weight_vd)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tokens_t, grad_td = ctx.saved_tensors[0].flatten(), grads[0].flatten(0, -2).float()
        if ctx.wants_dense:
            return None, torch.zeros(ctx.shape).index_add_(0, tokens_t, grad_td), None, None
        d_values_n = torch.zeros(len(ctx.columns_n))
        inputs = grad_td.contiguous().numpy(), tokens_t.numpy(), ctx.starts, ctx.columns_n
        _add_rows(*inputs, d_values_n.numpy())
        return None, None, d_values_n, None


@numba.njit(cache=True, nogil=True)
def _add_rows(
    grad_td: np.ndarray,
    tokens_t: np.ndarray,
    starts: np.ndarray,
    columns_n: np.ndarray,
    d_values_n: np.ndarray,
) -> None:
    """Add each position's gradient to the listed entries of its token's row."""
    for t in range(tokens_t.size):
        for n in range(starts[tokens_t[t]], starts[tokens_t[t] + 1]):
            d_values_n[n] += grad_td[t, columns_n[n]]


register("linear", serves, linear)
register("embedding", serves_embedding, embed)
