"""The gradient of node gates on a CPU, for input and gate in one pass (`circuits/mask_learning.py`)."""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import parallel_for, threads_for
from sparsity_lab.kernels.derivative import refuse_graph
from sparsity_lab.model.dispatch import register

# Rows are summed in a fixed number of parts, so that sums do not depend on the number of threads.
_CHUNKS = 16


def serves(grad_btc: Tensor, x_btc: Tensor, open_c: Tensor, value_c: Tensor) -> bool:
    """Accept float32 on a CPU, with a gate and a frozen value for each channel."""
    tensors = (grad_btc, x_btc, value_c)
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and open_c.shape == value_c.shape == x_btc.shape[-1:]
        and grad_btc.shape == x_btc.shape
    )


def gate_gradient(grad: Tensor, x: Tensor, open_c: Tensor, value_c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient through open gates (b, t, c), and the sum of grad · (x - value) per channel (c).

    Raises:
        RuntimeError: a second derivative is asked for.
    """
    refuse_graph()
    grad, x = grad.contiguous(), x.contiguous()
    passed, sums_pc = torch.empty_like(grad), torch.zeros(_CHUNKS, x.shape[-1])
    _gate_backward(
        threads_for(_CHUNKS),
        _CHUNKS,
        grad.flatten(0, 1).numpy(),
        x.flatten(0, 1).numpy(),
        open_c.numpy(),
        value_c.numpy(),
        passed.flatten(0, 1).numpy(),
        sums_pc.numpy(),
    )
    return passed, sums_pc.sum(0)


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _gate_backward_part(
    begin: int,
    end: int,
    grad_nc: np.ndarray,
    x_nc: np.ndarray,
    open_c: np.ndarray,
    value_c: np.ndarray,
    passed_nc: np.ndarray,
    sums_pc: np.ndarray,
) -> None:
    size = (grad_nc.shape[0] + sums_pc.shape[0] - 1) // sums_pc.shape[0]
    for part in range(begin, end):
        for row in range(part * size, min((part + 1) * size, grad_nc.shape[0])):
            for channel in range(grad_nc.shape[1]):
                grad = grad_nc[row, channel]
                sums_pc[part, channel] += grad * (x_nc[row, channel] - value_c[channel])
                passed_nc[row, channel] = grad if open_c[channel] else np.float32(0)


@numba.njit(cache=True, nogil=True)
def _gate_backward(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(_gate_backward_part, threads, size, arguments)


register("gate_gradient", serves, gate_gradient)
