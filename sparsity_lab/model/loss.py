"""Cross-entropy of logits plus bigram rows; its gradient is computed on the way, in the logits' own memory.

A few rows at a time, while they are in the processor's cache: the bigram row is added, the softmax formed,
the loss read off, and the logits overwritten by their gradient; no second tensor of their size is made. A
learned bigram table's gradient is added up in the rows of the tokens that occurred, and in no others.

Shapes: n positions, v vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 17  # logits at a time: half a megabyte of float32


def overwriting_cross_entropy(
    logits_nv: Tensor, bigram_vv: Tensor | None, tokens_n: Tensor, targets_n: Tensor
) -> Tensor:
    """Mean cross-entropy in nats of `logits_nv + bigram_vv[tokens_n]`, float32; `logits_nv` is used up."""
    return _CrossEntropy.apply(logits_nv, bigram_vv, tokens_n, targets_n)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_nv: Tensor, bigram_vv: Tensor | None, tokens_n: Tensor, targets_n: Tensor
    ) -> Tensor:
        logits_nv = logits_nv.detach()
        total = torch.zeros((), dtype=torch.float32, device=logits_nv.device)
        on_cpu = logits_nv.device.type == "cpu"
        rows = max(1, CHUNK // logits_nv.shape[1]) if on_cpu else len(logits_nv)
        with torch.autocast(logits_nv.device.type, enabled=False):
            for chunk_cv, tokens_c, target_c in zip(
                logits_nv.split(rows), tokens_n.split(rows), targets_n.split(rows), strict=True
            ):
                target_c1 = target_c.unsqueeze(-1)
                p_cv = chunk_cv if logits_nv.dtype in (torch.float32, torch.float64) else chunk_cv.float()
                if bigram_vv is not None:
                    p_cv += bigram_vv[tokens_c]
                p_cv -= p_cv.amax(-1, keepdim=True)
                right_c = p_cv.gather(-1, target_c1).sum()
                sum_c1 = p_cv.exp_().sum(-1, keepdim=True)
                total += sum_c1.log().sum() - right_c
                p_cv /= sum_c1 * len(targets_n)
                p_cv.scatter_add_(-1, target_c1, torch.full_like(sum_c1, -1 / len(targets_n)))
                if p_cv is not chunk_cv:
                    chunk_cv.copy_(p_cv)
        ctx.shape = None if bigram_vv is None else bigram_vv.shape
        ctx.save_for_backward(logits_nv, tokens_n)
        return total / len(targets_n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_nv, tokens_n = ctx.saved_tensors
        if grads[0].device.type != "cpu" or grads[0].item() != 1:
            grad_nv = (grad_nv * grads[0]).to(grad_nv.dtype)
        grad_vv = None
        if ctx.needs_input_grad[1]:
            grad_vv = torch.zeros(ctx.shape, device=grad_nv.device)
            grad_vv.index_add_(0, tokens_n, grad_nv.float())
        return grad_nv, grad_vv, None, None
