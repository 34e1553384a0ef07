"""AbsTopK for GPUs, in Triton: one program per row, which it keeps in registers.

The k-th largest magnitude is built bit by bit, from the highest bit. A bit is set if at least k magnitudes
reach the value so far. Entries above the result are kept, and the first ones equal to it fill up to k.
Without a GPU, it runs in Triton's interpreter (set TRITON_INTERPRET=1 before the import).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsity_lab.model.dispatch import register
from sparsity_lab.model.ops import float_bits


def serves(x_nc: Tensor, k: int) -> bool:
    """Accept CUDA and ROCm devices."""
    return x_nc.device.type == "cuda"


def abs_top_k(x_nc: Tensor, k: int) -> Tensor:
    """Compute `ops.abs_top_k` of rows for k below their width."""
    return torch.where(keep_largest(float_bits(x_nc), k), x_nc, 0)


def keep_largest(bits_nc: Tensor, k: int) -> Tensor:
    """Return a boolean (n, c) mask of the k largest magnitudes per row of floats, given as bit patterns."""
    kept_nc = torch.empty(bits_nc.shape, dtype=torch.bool, device=bits_nc.device)
    n_bits = torch.iinfo(bits_nc.dtype).bits - 1
    rows, width = bits_nc.shape
    if rows:
        block = triton.next_power_of_2(width)
        _keep_largest[(rows,)](bits_nc, kept_nc.view(torch.int8), k, width, n_bits, block)
    return kept_nc


@triton.jit
def _keep_largest(bits_ptr, kept_ptr, k, width, N_BITS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    start = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    bits = tl.load(bits_ptr + start + column, mask=inside, other=0).to(tl.int64)
    magnitude = tl.where(inside, bits & ((1 << N_BITS) - 1), -1)
    limit = tl.zeros((), dtype=tl.int64)
    one = limit + 1
    for place in range(N_BITS - 1, -1, -1):
        higher = limit | (one << place)
        reached = tl.sum((magnitude >= higher).to(tl.int32), axis=0)
        limit = tl.where(reached >= k, higher, limit)
    above = magnitude > limit
    equal = (magnitude == limit).to(tl.int32)
    ties = k - tl.sum(above.to(tl.int32), axis=0)
    first = (equal == 1) & (tl.cumsum(equal, axis=0) <= ties)
    tl.store(kept_ptr + start + column, (above | first).to(tl.int8), mask=inside)


register("abs_top_k", serves, abs_top_k)
