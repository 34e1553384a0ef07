"""Cross-entropy of logits plus bias plus bigram rows, whose gradient overwrites the logits in place.

A compiled loop runs on a CPU, PyTorch's operations elsewhere. Neither allocates a second tensor of the
logits' size. The gradient of a learned bigram table is accumulated only in the rows of tokens that occur.

Shapes: n positions, v vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.cross_entropy import overwrite_by_gradient
from sparsity_lab.kernels.cpu.row_sums import add_rows
from sparsity_lab.kernels.derivative import differentiable_once
from sparsity_lab.model.dispatch import register
from sparsity_lab.model.ops import IGNORED_TARGET


def serves(x_btd: Tensor) -> bool:
    """Accept every device except `meta`."""
    return x_btd.device.type != "meta"


def overwriting_cross_entropy(
    logits_nv: Tensor, bias_v: Tensor | None, bigram_vv: Tensor | None, tokens_n: Tensor, targets_n: Tensor
) -> Tensor:
    """Mean cross-entropy, in nats and float32, of `logits_nv + bias_v + bigram_vv[tokens_n]`.

    `logits_nv` is overwritten. Targets of -100 are left out of the mean.

    Raises:
        ValueError: the number of tokens or targets, or the width of bias or table, differs from the logits'.
        RuntimeError: the logits are a leaf that requires a gradient, which may not be overwritten.
        IndexError: on a CPU, a target is outside the vocabulary, or a token outside the table.
    """
    rows, vocabulary = logits_nv.shape
    if not rows == len(tokens_n) == len(targets_n):
        raise ValueError(f"{rows} rows of logits, {len(tokens_n)} tokens, {len(targets_n)} targets")
    if logits_nv.is_leaf and logits_nv.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("the logits are a leaf that requires a gradient; the loss would overwrite it")
    for name, tensor in (("bias", bias_v), ("bigram table", bigram_vv)):
        if tensor is not None and tensor.shape[-1] != vocabulary:
            raise ValueError(f"{name} of {tensor.shape[-1]} tokens, logits of {vocabulary}")
    # elsewhere the check would synchronise the device, which checks by itself
    if logits_nv.device.type == "cpu":
        _require_inside("target", targets_n[targets_n != IGNORED_TARGET], vocabulary)
        if bigram_vv is not None:
            _require_inside("token", tokens_n, len(bigram_vv))
    return _CrossEntropy.apply(logits_nv, bias_v, bigram_vv, tokens_n, targets_n)


def _require_inside(name: str, indices_n: Tensor, size: int) -> None:
    outside_n = (indices_n < 0) | (indices_n >= size)
    if outside_n.any():
        raise IndexError(f"{name} {int(indices_n[outside_n][0])}: there are 0 to {size - 1}")


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
        counted = (targets_n != IGNORED_TARGET).sum()
        with torch.autocast(logits_nv.device.type, enabled=False):
            inputs = logits_nv, bias_v, bigram_vv, tokens_n, targets_n
            if _by_loop(logits_nv):
                losses_n = overwrite_by_gradient(*inputs, int(counted))
            else:
                losses_n = _by_operations(*inputs, counted)
        # a backward pass that needs the overwritten logits fails instead of using them
        torch.autograd.graph.increment_version(logits_nv)
        ctx.shape = None if bigram_vv is None else bigram_vv.shape
        ctx.save_for_backward(logits_nv, tokens_n)
        return losses_n.mean() * (len(losses_n) / counted)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        grad_nv, tokens_n = ctx.saved_tensors
        if grads[0].device.type != "cpu" or grads[0].item() != 1:
            grad_nv = (grad_nv * grads[0]).to(grad_nv.dtype)
        grad_v = grad_vv = None
        if ctx.needs_input_grad[1]:
            grad_v = grad_nv.sum(0, dtype=torch.promote_types(grad_nv.dtype, torch.float32))
        if ctx.needs_input_grad[2]:
            grad_vv = torch.zeros(ctx.shape, device=grad_nv.device)
            if _by_loop(grad_nv):
                add_rows(grad_nv, tokens_n, grad_vv)
            else:
                grad_vv.index_add_(0, tokens_n, grad_nv.float())
        return grad_nv, grad_v, grad_vv, None, None


def _by_loop(logits_nv: Tensor) -> bool:
    return logits_nv.device.type == "cpu" and logits_nv.dtype in (torch.float32, torch.bfloat16)


def _by_operations(
    logits_nv: Tensor,
    bias_v: Tensor | None,
    bigram_vv: Tensor | None,
    tokens_n: Tensor,
    targets_n: Tensor,
    counted: Tensor,
) -> Tensor:
    """Return each position's loss; overwrite the logits by the gradient of the mean over `counted`."""
    ignored_n1 = (targets_n == IGNORED_TARGET).unsqueeze(-1)
    target_n1 = targets_n.unsqueeze(-1).masked_fill(ignored_n1, 0)
    # shares the logits' memory if they are float32
    p_nv = logits_nv.to(torch.promote_types(logits_nv.dtype, torch.float32))
    if bias_v is not None:
        p_nv += bias_v
    if bigram_vv is not None:
        p_nv += bigram_vv[tokens_n]
    p_nv -= p_nv.amax(-1, keepdim=True)
    right_n1 = p_nv.gather(-1, target_n1)
    sum_n1 = p_nv.exp_().sum(-1, keepdim=True)
    counted = counted.to(p_nv.dtype)
    p_nv /= (sum_n1 * counted).masked_fill(ignored_n1, torch.inf)
    p_nv.scatter_add_(-1, target_n1, (-1 / counted).expand_as(sum_n1).masked_fill(ignored_n1, 0))
    if p_nv is not logits_nv:
        logits_nv.copy_(p_nv)
    return (sum_n1.log() - right_n1).masked_fill(ignored_n1, 0).squeeze(-1).float()


register("cross_entropy", serves, overwriting_cross_entropy)
