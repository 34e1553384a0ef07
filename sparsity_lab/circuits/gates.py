"""Learned gates on nodes: a step going forward, a sigmoid's slope going back (Gao et al. 2025, App. A.5)."""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from sparsity_lab.circuits.ablation import freeze
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.kernels.cpu.parallel_for import in_parts, threads_for
from sparsity_lab.model.sites import Site, Tap

# rows are summed in this many parts, whatever the number of threads, so that sums are the same bits
_CHUNKS = 16


def heaviside_slope(tau: Tensor, temperature: float) -> Tensor:
    """Derivative of sigmoid(tau / temperature): what stands in for the gate's own."""
    sigmoid = torch.sigmoid(tau / temperature)
    return sigmoid * (1 - sigmoid) / temperature


def gate_nodes(layout: NodeLayout, tau_n: Tensor, values_n: Tensor, temperature: float) -> Tap:
    """A tap that passes nodes with tau > 0 and freezes the others at `values_n`; tau learns from both."""

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        if site is Site.RESID:
            return x_btc
        place = layout.slices[site, layer]
        return _Gate.apply(x_btc, tau_n[place], values_n[place], temperature)

    return tap


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_btc: Tensor, tau_c: Tensor, value_c: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(x_btc, tau_c, value_c)
        ctx.temperature = temperature
        return freeze(x_btc, tau_c > 0, value_c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_btc, tau_c, value_c = ctx.saved_tensors
        grad_btc = grads[0]
        if grad_btc.device.type == "cpu" and grad_btc.dtype == x_btc.dtype == torch.float32:
            passed_btc, slope_c = _backward_on_cpu(grad_btc, x_btc, tau_c > 0, value_c)
        else:
            passed_btc = torch.where(tau_c > 0, grad_btc, 0)
            slope_c = (grad_btc.float() * (x_btc.float() - value_c)).sum((0, 1))
        return passed_btc, slope_c * heaviside_slope(tau_c, ctx.temperature), None, None


def _backward_on_cpu(grad: Tensor, x: Tensor, open_c: Tensor, value_c: Tensor) -> tuple[Tensor, Tensor]:
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
    in_parts(_gate_backward_part, threads, size, arguments)
