"""RMSNorm on a CPU, forward and backward, reading each position once from memory.

    y = x r w,  r = 1 / sqrt(mean(x^2) + eps);  dx = r (g w - x r^2 mean(g w x)),  dw = sum of g x r

The gradient of the weight is summed over blocks of positions first, so that no result depends on threads.

Shapes: n positions, c channels, k blocks.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for
from sparsity_lab.kernels.derivative import differentiable_once
from sparsity_lab.model.dispatch import register

POSITIONS = 64  # in a block
# A sum over channels runs in vector lanes, so its order is that of the compiled code, the same in every run
REORDER = {"contract", "reassoc", "nsz"}


def serves(x: Tensor, weight_c: Tensor, eps: float) -> bool:
    """Accept float32 on a CPU."""
    return x.device.type == "cpu" and x.dtype == weight_c.dtype == torch.float32


def rms_norm(x: Tensor, weight_c: Tensor, eps: float) -> Tensor:
    """Compute `F.rms_norm` over the last axis.

    Raises:
        ValueError: there is not a weight for each channel.
    """
    if x.shape[-1:] != weight_c.shape:
        raise ValueError(f"{x.shape[-1]} channels, but {tuple(weight_c.shape)} weights")
    y: Tensor = _RMSNorm.apply(x.reshape(-1, len(weight_c)), weight_c, eps)
    return y.view(x.shape)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nc: Tensor, weight_c: Tensor, eps: float) -> Tensor:
        x_nc = x_nc.contiguous()
        y_nc, scale_n = torch.empty_like(x_nc), torch.empty(len(x_nc))
        inputs = x_nc.detach().numpy(), weight_c.detach().numpy(), np.float32(eps)
        _normalise(threads_for(len(x_nc)), len(x_nc), *inputs, y_nc.numpy(), scale_n.numpy())
        ctx.save_for_backward(x_nc, weight_c, scale_n)
        return y_nc

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x_nc, weight_c, scale_n = (tensor.detach() for tensor in ctx.saved_tensors)
        blocks = (len(x_nc) + POSITIONS - 1) // POSITIONS
        d_x_nc, d_weight_kc = torch.empty_like(x_nc), torch.zeros(blocks, len(weight_c))
        inputs = grads[0].contiguous(), x_nc, weight_c, scale_n, d_x_nc, d_weight_kc
        _normalise_back(threads_for(blocks), blocks, *(tensor.numpy() for tensor in inputs))
        return d_x_nc, d_weight_kc.sum(0), None


@numba.njit(cache=True, nogil=True, fastmath=REORDER, error_model="numpy")
def _normalise_part(
    begin: int,
    end: int,
    x_nc: np.ndarray,
    weight_c: np.ndarray,
    eps: np.float32,
    y_nc: np.ndarray,
    scale_n: np.ndarray,
) -> None:
    channels = x_nc.shape[1]
    for n in range(begin, end):
        total = np.float32(0)
        for c in range(channels):
            total += x_nc[n, c] * x_nc[n, c]
        scale = np.float32(1) / np.sqrt(total / np.float32(channels) + eps)
        scale_n[n] = scale
        for c in range(channels):
            y_nc[n, c] = x_nc[n, c] * scale * weight_c[c]


@numba.njit(cache=True, nogil=True, fastmath=REORDER, error_model="numpy")
def _normalise_back_part(
    begin: int,
    end: int,
    grad_nc: np.ndarray,
    x_nc: np.ndarray,
    weight_c: np.ndarray,
    scale_n: np.ndarray,
    d_x_nc: np.ndarray,
    d_weight_kc: np.ndarray,
) -> None:
    positions, channels = x_nc.shape
    for block in range(begin, end):
        for n in range(block * POSITIONS, min((block + 1) * POSITIONS, positions)):
            scale, total = scale_n[n], np.float32(0)
            for c in range(channels):
                total += grad_nc[n, c] * weight_c[c] * x_nc[n, c]
            share = total * scale * scale / np.float32(channels)
            for c in range(channels):
                d_x_nc[n, c] = scale * (grad_nc[n, c] * weight_c[c] - x_nc[n, c] * share)
                d_weight_kc[block, c] += grad_nc[n, c] * x_nc[n, c] * scale


@numba.njit(cache=True, nogil=True)
def _normalise(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_normalise_part, threads, size, arguments)


@numba.njit(cache=True, nogil=True)
def _normalise_back(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_normalise_back_part, threads, size, arguments)


register("rms_norm", serves, rms_norm)
