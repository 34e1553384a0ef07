"""A linear layer for a mostly zero weight: products use the nonzeros only, the weight gradient is dense.

1. The nonzeros of the dense weight are listed anew, by output, and by input for the backward pass.
2. A block of tokens is transposed to features first, so that a nonzero multiplies a contiguous run of tokens.
   The sums are transposed back.
3. The weight's gradient is the ordinary dense product, by which training revives zero weights (§2.1).

Under autocast to bfloat16 inputs, outputs and their gradients may be bfloat16 in memory, as those of a dense
layer are; weights, products and sums stay float32. The summation order of a token depends on neither threads
nor other tokens.

Shapes: t tokens, i inputs, o outputs, n nonzeros.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.gathered import add_columns
from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for
from sparsity_lab.kernels.cpu.row_sums import sum_rows
from sparsity_lab.kernels.cpu.simd import TILE, TOKENS, as_array, room, transpose
from sparsity_lab.kernels.derivative import differentiable_once
from sparsity_lab.model.dispatch import register
from sparsity_lab.model.listing import listing_of

MOST, MOST_BF16 = 0.25, 0.07  # largest nonzero share at which this beats a dense product (docs/speed_log.md)
# The limit for a frozen weight, whose nonzeros are listed once. Not measured separately.
FROZEN = 0.2
GROUP = 64  # outputs transposed together


class Nonzeros(NamedTuple):
    """Nonzeros in compressed-row format: row r has the entries starts[r] : starts[r + 1]."""

    starts: np.ndarray
    columns_n: np.ndarray
    values_n: np.ndarray


def serves(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None) -> bool:
    """Accept float32 on a CPU, or autocast to bfloat16, if few of the weights are nonzero.

    Listed weights have their own kernel (`listed_linear.py`).
    """
    if listing_of(weight_oi) is not None:
        return False
    if x.device.type != "cpu" or weight_oi.dtype != torch.float32 or (dtype := result_type(x)) is None:
        return False
    return _mostly_zero(weight_oi.detach().numpy(), MOST_BF16 if dtype == torch.bfloat16 else MOST)


def linear(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None) -> Tensor:
    """Compute `F.linear`, following autocast where enabled."""
    dtype = result_type(x)
    assert dtype is not None
    return linear_by_nonzeros(float32_or_bfloat16(x), weight_oi, bias_o, dtype)


def float32_or_bfloat16(x: Tensor) -> Tensor:
    """Return `x`, as float32 if it has another type."""
    return x if x.dtype == torch.bfloat16 else x.float()


def result_type(x: Tensor) -> torch.dtype | None:
    """Return the type of the layer's result on a CPU, float32 or autocast's bfloat16; None for others."""
    if torch.is_autocast_enabled("cpu"):
        return torch.bfloat16 if torch.get_autocast_dtype("cpu") == torch.bfloat16 else None
    return torch.float32 if x.dtype == torch.float32 else None


def linear_by_nonzeros(
    x: Tensor, weight_oi: Tensor, bias_o: Tensor | None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Compute `F.linear` on a CPU from the nonzero weights, with a dense weight gradient.

    The result and the product for that gradient are of type `dtype`, float32 or bfloat16; so may `x` be.

    Raises:
        ValueError: input, weight and bias do not fit together.
    """
    require_fit(x.shape[-1], weight_oi, bias_o)
    x_ti = x.reshape(-1, x.shape[-1])
    return _SparseLinear.apply(x_ti, weight_oi, bias_o, dtype).view(*x.shape[:-1], len(weight_oi))


def serves_frozen(weight_oi: Tensor) -> bool:
    """Accept float32 on a CPU if few of the weights are nonzero."""
    if weight_oi.device.type != "cpu" or weight_oi.dtype != torch.float32:
        return False
    return int(torch.count_nonzero(weight_oi)) < FROZEN * weight_oi.numel()


class FrozenProduct:
    """`F.linear` with a frozen weight (o, i) and bias, whose nonzeros are listed once."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor) -> None:
        require_fit(weight_oi.shape[1], weight_oi, bias_o)
        self.bias_o = bias_o
        self.rows = Nonzeros(*_nonzeros(weight_oi.contiguous().numpy()))
        self.columns = Nonzeros(*transposed(*self.rows, weight_oi.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        inputs = len(self.columns.starts) - 1
        if x.shape[-1] != inputs:
            raise ValueError(f"{x.shape[-1]} inputs, but the weight has {inputs}")
        y_to = _FrozenLinear.apply(x.reshape(-1, inputs), self.rows, self.columns, self.bias_o)
        return y_to.view(*x.shape[:-1], len(self.bias_o))


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ti: Tensor, rows: Nonzeros, columns: Nonzeros, bias_o: Tensor) -> Tensor:
        ctx.columns = columns
        return sparse_product(x_ti.contiguous(), rows, len(bias_o), bias_o, torch.float32)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        inputs = len(ctx.columns.starts) - 1
        d_x_ti = sparse_product(grads[0].contiguous(), ctx.columns, inputs, None, torch.float32)
        return d_x_ti, None, None, None


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ti: Tensor, weight_oi: Tensor, bias_o: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        x_ti = x_ti.contiguous()
        ctx.save_for_backward(x_ti.to(dtype))
        ctx.x_type, ctx.rows = x_ti.dtype, Nonzeros(*_nonzeros(weight_oi.detach().numpy()))
        return sparse_product(x_ti, ctx.rows, len(weight_oi), bias_o, dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        (x_ti,), rows = ctx.saved_tensors, ctx.rows
        grad_to, inputs = grads[0].contiguous(), x_ti.shape[1]
        d_x_ti = None
        if ctx.needs_input_grad[0]:
            columns = Nonzeros(*transposed(rows.starts, rows.columns_n, rows.values_n, inputs))
            d_x_ti = sparse_product(grad_to, columns, inputs, None, ctx.x_type)
        d_weight_oi = (grad_to.to(x_ti.dtype).T @ x_ti).float()
        return d_x_ti, d_weight_oi, sum_rows(grad_to) if ctx.needs_input_grad[2] else None, None


def require_fit(inputs: int, weight_oi: Tensor, bias_o: Tensor | None) -> None:
    if inputs != weight_oi.shape[1]:
        raise ValueError(f"{inputs} inputs, but the weight has {weight_oi.shape[1]}")
    if bias_o is not None and bias_o.shape != weight_oi.shape[:1]:
        raise ValueError(f"{len(bias_o)} biases, but {len(weight_oi)} outputs")


def sparse_product(
    x_ti: Tensor, rows: Nonzeros, outputs: int, bias_o: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Multiply each token's inputs by the nonzeros of each output and add the bias.

    Inputs and result, the latter of type `dtype` and shape (t, outputs), are float32 or bfloat16.
    """
    y_to = torch.empty(len(x_ti), outputs, dtype=dtype)
    bias = torch.zeros(outputs) if bias_o is None else bias_o.detach()
    blocks = (len(x_ti) + TOKENS - 1) // TOKENS
    _multiply(threads_for(blocks), blocks, as_array(x_ti.detach()), *rows, bias.numpy(), as_array(y_to))
    return y_to


@numba.njit(cache=True)
def _mostly_zero(weight_oi: np.ndarray, most: float) -> bool:
    """Return whether at most a share `most` of the weights is nonzero; a dense weight is rejected early."""
    left = np.int64(most * weight_oi.size)
    for row in range(weight_oi.shape[0]):
        count = np.int32(0)
        for column in range(weight_oi.shape[1]):
            count += np.int32(weight_oi[row, column] != 0)
        left -= count
        if left < 0:
            return False
    return True


@numba.njit(cache=True)
def _nonzeros(weight_oi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    outputs, inputs = weight_oi.shape
    starts = np.zeros(outputs + 1, dtype=np.int32)
    for row in range(outputs):
        count = np.int32(0)
        for column in range(inputs):
            count += np.int32(weight_oi[row, column] != 0)
        starts[row + 1] = starts[row] + count
    # one extra slot: the loop below also writes a zero after the last nonzero
    columns = np.empty(starts[-1] + 1, dtype=np.int32)
    values = np.empty(starts[-1] + 1, dtype=weight_oi.dtype)
    for row in range(outputs):
        place = starts[row]
        for column in range(inputs):
            columns[place] = column
            values[place] = weight_oi[row, column]
            place += weight_oi[row, column] != 0
    return starts, columns[: starts[-1]], values[: starts[-1]]


@numba.njit(cache=True)
def transposed(
    starts: np.ndarray, columns: np.ndarray, values: np.ndarray, inputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn compressed rows into compressed columns."""
    first = np.zeros(inputs + 1, dtype=np.int32)
    for column in columns:
        first[column + 1] += 1
    for column in range(inputs):
        first[column + 1] += first[column]
    place = first[:-1].copy()
    rows, moved = np.empty_like(columns), np.empty_like(values)
    for row in range(starts.size - 1):
        for index in range(starts[row], starts[row + 1]):
            column = columns[index]
            rows[place[column]], moved[place[column]] = row, values[index]
            place[column] += 1
    return first, rows, moved


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _multiply_part(
    first: int,
    last: int,
    x_ti: np.ndarray,
    starts: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    bias: np.ndarray,
    y_to: np.ndarray,
) -> None:
    tokens, inputs = x_ti.shape
    outputs = y_to.shape[1]
    x_it, y_gt = room(inputs, TOKENS), room(GROUP, TOKENS)
    for block in range(first, last):
        begin, size = block * TOKENS, min(TOKENS, tokens - block * TOKENS)
        transpose(x_ti, begin, 0, size, inputs, x_it, 0, 0)
        x_it[:, size:] = 0
        for group in range(0, outputs, GROUP):
            for row in range(group, min(group + GROUP, outputs)):
                add_columns(x_it, columns, values, starts[row], starts[row + 1], bias[row], y_gt, row - group)
            # write a token's outputs consecutively, so that cache lines are filled whole
            for token in range(0, size, TILE):
                count = min(TILE, size - token)
                transpose(y_gt, 0, token, min(GROUP, outputs - group), count, y_to, begin + token, group)


@numba.njit(cache=True, nogil=True)
def _multiply(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_multiply_part, threads, size, arguments)


register("linear", serves, linear)
register("frozen_linear", serves_frozen, FrozenProduct)
