"""Cross-entropy and its gradient on a CPU, one row of logits at a time, so that the row stays in cache.

For each row the loop adds bias and bigram row, forms the softmax, reads off the loss, and overwrites the
logits by their gradient (`kernels/cross_entropy.py`).

Shapes: n positions, v vocabulary.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for
from sparsity_lab.kernels.cpu.simd import BITS, as_array, as_float, as_kind, exp2, room
from sparsity_lab.model.ops import IGNORED_TARGET

_PIECE = 64  # logits processed together; a multiple of the vector width


def overwrite_by_gradient(
    logits_nv: Tensor,
    bias_v: Tensor | None,
    bigram_vv: Tensor | None,
    tokens_n: Tensor,
    targets_n: Tensor,
    counted: int,
) -> Tensor:
    """Return the losses (n); overwrite the logits by the gradient of the mean over `counted` positions."""
    losses_n = torch.empty(len(logits_nv))
    bias_v = torch.zeros(logits_nv.shape[1]) if bias_v is None else bias_v.detach().float()
    table_vv = torch.zeros(0, logits_nv.shape[1]) if bigram_vv is None else bigram_vv.detach().float()
    inputs = (tensor.numpy() for tensor in (bias_v, table_vv, tokens_n, targets_n))
    rows = len(logits_nv)
    _cross_entropy(
        threads_for(rows), rows, as_array(logits_nv), *inputs, IGNORED_TARGET, counted, losses_n.numpy()
    )
    return losses_n


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _cross_entropy_part(
    begin: int,
    end: int,
    logits_nv: np.ndarray,
    bias_v: np.ndarray,
    bigram_vv: np.ndarray,
    tokens_n: np.ndarray,
    targets_n: np.ndarray,
    ignored: int,
    counted: int,
    losses_n: np.ndarray,
) -> None:
    vocabulary = logits_nv.shape[1]
    width = (vocabulary + _PIECE - 1) // _PIECE * _PIECE
    x_v, buffer = room(1, width)[0], room(2, _PIECE)
    most, total = buffer[0], buffer[1]
    for row in range(begin, end):
        logits, target = logits_nv[row], targets_n[row]
        if target == ignored:
            losses_n[row], logits[:] = 0, 0
            continue
        if len(bigram_vv):
            more = bigram_vv[tokens_n[row]]
            for v in range(vocabulary):
                x_v[v] = as_float(logits[v]) + bias_v[v] + more[v]
        else:
            for v in range(vocabulary):
                x_v[v] = as_float(logits[v]) + bias_v[v]
        x_v[vocabulary:], most[:] = -np.inf, -np.inf
        for at in range(0, width, _PIECE):
            x = x_v[at : at + _PIECE]
            for i in range(_PIECE):
                most[i] = x[i] if not x[i] <= most[i] else most[i]  # a NaN reaches the loss by the sum
        largest = most[0]
        for i in range(_PIECE):
            largest = most[i] if not most[i] <= largest else largest
        right = x_v[target] - largest
        total[:] = 0
        for at in range(0, width, _PIECE):
            x = x_v[at : at + _PIECE]
            for i in range(_PIECE):
                p = exp2((x[i] - largest) * BITS)
                x[i] = p
                total[i] += p
        whole = np.float32(0)
        for i in range(_PIECE):
            whole += total[i]
        losses_n[row] = np.log(whole) - right
        share = np.float32(1) / (whole * np.float32(counted))
        for v in range(vocabulary):
            logits[v] = as_kind(x_v[v] * share, logits[v])
        logits[target] = as_kind(x_v[target] * share - np.float32(1) / np.float32(counted), logits[target])


@numba.njit(cache=True, nogil=True)
def _cross_entropy(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_cross_entropy_part, threads, size, arguments)
