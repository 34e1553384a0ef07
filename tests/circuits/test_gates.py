"""Gates: a step going forward, the sigmoid's slope going back; the CPU kernel equals the plain formula."""

import math

import pytest
import torch
from micro import question, random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.mask_learning import gate_nodes, heaviside_slope
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.model.dispatch import plain_operations
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import ablate

LAYOUT = NodeLayout(small_model().config)


def values(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and its gradient (b, t, c), tau and value (c) of the widest site."""
    generator = torch.Generator().manual_seed(seed)
    width = LAYOUT.config.width(Site.MLP_NEURON)
    x, grad = torch.randn(2, 3, 7, width, generator=generator)
    tau, value = torch.randn(2, width, generator=generator)
    tau[:2] = 0.0  # shut: only above 0 is open
    return x, grad, tau.clamp(-1, 1), value


def gated(x: Tensor, tau_c: Tensor, value_c: Tensor, temperature: float) -> Tensor:
    place = LAYOUT.slices[Site.MLP_NEURON, 1]
    tau_n, value_n = torch.zeros(LAYOUT.size), torch.zeros(LAYOUT.size)
    tau_n, value_n = tau_n.index_put((torch.arange(place.start, place.stop),), tau_c), value_n.clone()
    value_n[place] = value_c
    return gate_nodes(LAYOUT, tau_n, value_n, temperature)(Site.MLP_NEURON, 1, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_forward_and_backward_are_the_plain_formula(dtype: torch.dtype, temperature: float) -> None:
    x, grad, tau, value = values(0)
    x, grad = x.to(dtype).requires_grad_(), grad.to(dtype)
    tau = tau.requires_grad_()
    y = gated(x, tau, value, temperature)
    assert torch.equal(y, torch.where(tau > 0, x, value.to(dtype)))
    y.backward(grad)
    sigmoid = torch.sigmoid(tau.detach() / temperature)
    slope = sigmoid * (1 - sigmoid) / temperature
    expected_tau = slope * (grad.double() * (x.detach().double() - value.double())).sum((0, 1)).float()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(tau > 0, grad, 0))
    torch.testing.assert_close(tau.grad, expected_tau, rtol=1e-4, atol=1e-4)


def test_strided_gradients_and_many_rows() -> None:
    x, grad, tau, value = values(1)
    x = x.repeat(1, 40, 1).transpose(0, 1).requires_grad_()
    grad = grad.repeat(1, 40, 1).transpose(0, 1)
    tau.requires_grad_()
    gated(x, tau, value, 1.0).backward(grad)
    expected = heaviside_slope(tau.detach(), 1.0) * (grad * (x.detach() - value)).sum((0, 1))
    torch.testing.assert_close(tau.grad, expected, rtol=1e-4, atol=1e-3)


def test_the_number_of_threads_changes_nothing() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            x, grad, tau, value = values(2)
            tau.requires_grad_()
            gated(x.requires_grad_(), tau, value, 1.0).backward(grad)
            assert tau.grad is not None
            found.append(tau.grad)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_slope_by_hand() -> None:
    slope = heaviside_slope(torch.tensor([0.0, 1.0, -1.0]), 0.5)
    sigmoid = 1 / (1 + math.exp(-2))
    expected = [0.5, 2 * sigmoid * (1 - sigmoid), 2 * sigmoid * (1 - sigmoid)]
    torch.testing.assert_close(slope, torch.tensor(expected))


def test_gates_compute_what_ablation_does_and_every_node_gets_a_gradient() -> None:
    model, tokens_bt = small_model(activation_fraction=1.0), random_tokens(4, 8)
    means_n = mean_activations(model, [tokens_bt])
    generator = torch.Generator().manual_seed(0)
    tau_n = torch.randn(LAYOUT.size, generator=generator).requires_grad_()
    logits = model(tokens_bt, gate_nodes(LAYOUT, tau_n, means_n, 1.0))
    assert torch.equal(logits, model(tokens_bt, ablate(LAYOUT, tau_n.detach() > 0, means_n)))
    logits[:, -1].square().sum().backward()
    assert tau_n.grad is not None
    for group in LAYOUT.groups:
        assert tau_n.grad[group.start : group.stop].any(), group


def test_the_residual_stream_is_no_node() -> None:
    x = torch.randn(1, 2, 16)
    tau_n = torch.full((LAYOUT.size,), -1.0)
    assert gate_nodes(LAYOUT, tau_n, tau_n, 1.0)(Site.RESID, 0, x) is x
    assert question(1).tokens_bt.shape == (2, 4)


def test_without_kernels_the_gradients_are_the_same() -> None:
    def slopes() -> tuple[Tensor, ...]:
        x, grad, tau, value = values(3)
        y = gated(x.requires_grad_(), tau.requires_grad_(), value, 1.0)
        return torch.autograd.grad(y, (x, tau), grad)

    x_by_kernel, tau_by_kernel = slopes()
    with plain_operations():
        x_plain, tau_plain = slopes()
    assert torch.equal(x_by_kernel, x_plain)
    torch.testing.assert_close(tau_by_kernel, tau_plain, rtol=1e-4, atol=1e-4)


def test_the_kernel_refuses_a_second_derivative() -> None:
    x, grad, tau, value = values(4)
    y = gated(x, tau.requires_grad_(), value, 1.0)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad((y * grad).sum(), tau, create_graph=True)
