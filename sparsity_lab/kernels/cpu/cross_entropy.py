"""Cross-entropy of logits plus bias plus bigram rows; its gradient is computed on the way, in their memory.

A row at a time, while it is in the processor's cache: bias and bigram row are added, the softmax formed, the
loss read off, and the logits overwritten by their gradient; no second tensor of their size is made. A learned
bigram table's gradient is added up in the rows of the tokens that occurred, and in no others.

Shapes: n positions, v vocabulary.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import in_parts, threads_for
from sparsity_lab.kernels.cpu.simd import BITS, as_float, as_kind, exp2, room

_PIECE = 64  # logits that are looked at together: whole vectors


def overwriting_cross_entropy(
    logits_nv: Tensor, bias_v: Tensor | None, bigram_vv: Tensor | None, tokens_n: Tensor, targets_n: Tensor
) -> Tensor:
    """Mean cross-entropy, in nats and float32, of `logits_nv + bias_v + bigram_vv[tokens_n]`.

    `logits_nv` is used up.
    """
    return _CrossEntropy.apply(logits_nv, bias_v, bigram_vv, tokens_n, targets_n)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_nv: Tensor,
        bias_v: Tensor | None,
        bigram_vv: Tensor | None,
        tokens_n: Tensor,
        targets_n: Tensor,
    ) -> Tensor:
        logits_nv = logits_nv.detach()
        on_cpu = logits_nv.device.type == "cpu" and logits_nv.dtype in (torch.float32, torch.bfloat16)
        losses_of = _by_kernel if on_cpu else _by_operations
        with torch.autocast(logits_nv.device.type, enabled=False):
            losses_n = losses_of(logits_nv, bias_v, bigram_vv, tokens_n, targets_n)
        ctx.shape = None if bigram_vv is None else bigram_vv.shape
        ctx.save_for_backward(logits_nv, tokens_n)
        return losses_n.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        grad_nv, tokens_n = ctx.saved_tensors
        if grads[0].device.type != "cpu" or grads[0].item() != 1:
            grad_nv = (grad_nv * grads[0]).to(grad_nv.dtype)
        grad_v = grad_vv = None
        if ctx.needs_input_grad[1]:
            grad_v = grad_nv.sum(0, dtype=torch.promote_types(grad_nv.dtype, torch.float32))
        if ctx.needs_input_grad[2]:
            grad_vv = torch.zeros(ctx.shape, device=grad_nv.device)
            grad_vv.index_add_(0, tokens_n, grad_nv.float())
        return grad_nv, grad_v, grad_vv, None, None


def _by_operations(
    logits_nv: Tensor, bias_v: Tensor | None, bigram_vv: Tensor | None, tokens_n: Tensor, targets_n: Tensor
) -> Tensor:
    """Each position's loss; the logits become the mean's gradient."""
    target_n1 = targets_n.unsqueeze(-1)
    p_nv = logits_nv.to(torch.promote_types(logits_nv.dtype, torch.float32))  # the same memory, if it can be
    if bias_v is not None:
        p_nv += bias_v
    if bigram_vv is not None:
        p_nv += bigram_vv[tokens_n]
    p_nv -= p_nv.amax(-1, keepdim=True)
    right_n1 = p_nv.gather(-1, target_n1)
    sum_n1 = p_nv.exp_().sum(-1, keepdim=True)
    p_nv /= sum_n1 * len(targets_n)
    p_nv.scatter_add_(-1, target_n1, torch.full_like(sum_n1, -1 / len(targets_n)))
    if p_nv is not logits_nv:
        logits_nv.copy_(p_nv)
    return (sum_n1.log() - right_n1).squeeze(-1).float()


def _by_kernel(
    logits_nv: Tensor, bias_v: Tensor | None, bigram_vv: Tensor | None, tokens_n: Tensor, targets_n: Tensor
) -> Tensor:
    losses_n = torch.empty(len(logits_nv))
    bits_nv = logits_nv if logits_nv.dtype == torch.float32 else logits_nv.view(torch.int16)
    bias_v = torch.zeros(logits_nv.shape[1]) if bias_v is None else bias_v.detach()
    table_vv = torch.zeros(0, logits_nv.shape[1]) if bigram_vv is None else bigram_vv.detach()
    tensors = bits_nv, bias_v, table_vv, tokens_n, targets_n, losses_n
    rows = len(logits_nv)
    _cross_entropy(threads_for(rows), rows, *(tensor.numpy() for tensor in tensors))
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
    losses_n: np.ndarray,
) -> None:
    rows, vocabulary = logits_nv.shape
    width = (vocabulary + _PIECE - 1) // _PIECE * _PIECE
    x_v, buffer = room(1, width)[0], room(2, _PIECE)
    most, total = buffer[0], buffer[1]
    for row in range(begin, end):
        logits, target = logits_nv[row], targets_n[row]
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
                most[i] = x[i] if not x[i] <= most[i] else most[i]  # what is no number stays
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
        share = np.float32(1) / (whole * np.float32(rows))
        for v in range(vocabulary):
            logits[v] = as_kind(x_v[v] * share, logits[v])
        logits[target] = as_kind(x_v[target] * share - np.float32(1) / np.float32(rows), logits[target])


@numba.njit(cache=True, nogil=True)
def _cross_entropy(threads: int, size: int, *arguments: Any) -> None:
    in_parts(_cross_entropy_part, threads, size, arguments)
