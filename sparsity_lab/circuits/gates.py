"""Learned gates on nodes: a step going forward, a sigmoid's slope going back (Gao et al. 2025, App. A.5)."""

from typing import Any

import torch
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.taps import freeze, on_nodes


def heaviside_slope(tau: Tensor, temperature: float) -> Tensor:
    """Derivative of sigmoid(tau / temperature): what stands in for the gate's own."""
    sigmoid = torch.sigmoid(tau / temperature)
    return sigmoid * (1 - sigmoid) / temperature


def gate_nodes(layout: NodeLayout, tau_n: Tensor, values_n: Tensor, temperature: float) -> Tap:
    """A tap that passes nodes with tau > 0 and freezes the others at `values_n`; tau learns from both."""
    return on_nodes(
        layout, lambda x_btc, place: _Gate.apply(x_btc, tau_n[place], values_n[place], temperature)
    )


def gate_gradient(grad_btc: Tensor, x_btc: Tensor, open_c: Tensor, value_c: Tensor) -> tuple[Tensor, Tensor]:
    """What passes the open gates (b, t, c), and the sum of grad · (x - value) in each channel (c)."""
    if kernel := kernel_for("gate_gradient", grad_btc, x_btc, open_c, value_c):
        passed_btc, slope_c = kernel(grad_btc, x_btc, open_c, value_c)
        return passed_btc, slope_c
    slope_c = (grad_btc.float() * (x_btc.float() - value_c)).sum((0, 1))
    return torch.where(open_c, grad_btc, 0), slope_c


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_btc: Tensor, tau_c: Tensor, value_c: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(x_btc, tau_c, value_c)
        ctx.temperature = temperature
        return freeze(x_btc, tau_c > 0, value_c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_btc, tau_c, value_c = ctx.saved_tensors
        passed_btc, slope_c = gate_gradient(grads[0], x_btc, tau_c > 0, value_c)
        return passed_btc, slope_c * heaviside_slope(tau_c, ctx.temperature), None, None
