"""The product by nonzeros equals the dense one, forward and backward, at any shape and kept fraction."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import random_tokens, small_model
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.kernels.cpu import sparse_linear
from sparsity_lab.kernels.cpu.sparse_linear import FrozenProduct, linear_by_nonzeros
from sparsity_lab.model.ops import Linear

FIELDS = {
    "tokens": st.integers(1, 150),
    "inputs": st.integers(1, 40),
    "outputs": st.integers(1, 40),
    "kept": st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    "seed": st.integers(0, 99),
}


def layer(inputs: int, outputs: int, kept: float, generator: torch.Generator) -> Linear:
    """A layer whose weights are integers, so that any order of the sum gives the same float."""
    linear = Linear(inputs, outputs)
    for parameter in linear.parameters():
        integers = torch.randint(-4, 5, parameter.shape, generator=generator).float()
        parameter.data = integers * (torch.rand(parameter.shape, generator=generator) < kept)
    return linear


def results(linear: Linear, x: Tensor, weights: Tensor, product: Any) -> list[Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    linear.zero_grad()
    y = product(x, linear.weight, linear.bias)
    (y * weights).sum().backward()
    found = [y.detach(), x.grad, linear.weight.grad, linear.bias.grad]
    return [tensor.clone() for tensor in found if tensor is not None]


@given(**FIELDS)
def test_it_equals_the_dense_product_to_the_bit_where_sums_are_exact(
    tokens: int, inputs: int, outputs: int, kept: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    linear = layer(inputs, outputs, kept, generator)
    x_ti = torch.randint(-8, 9, (tokens, inputs), generator=generator).float()
    weights_to = torch.randint(-8, 9, (tokens, outputs), generator=generator).float()
    ours = results(linear, x_ti, weights_to, linear_by_nonzeros)
    assert len(ours) == 4
    for one, other in zip(ours, results(linear, x_ti, weights_to, F.linear), strict=True):
        assert torch.equal(one, other)


def test_the_number_of_threads_changes_nothing() -> None:
    linear = Linear(70, 50)
    x_btc = torch.randn(3, 111, 70, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = linear_by_nonzeros(x_btc, linear.weight, linear.bias)
        torch.set_num_threads(2)
        assert torch.equal(linear_by_nonzeros(x_btc, linear.weight, linear.bias), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("kept", "dtype", "frozen", "expected"),
    [
        (0.03, torch.float32, False, True),
        (1.0, torch.float32, False, False),
        (0.03, torch.float64, False, False),
        (0.03, torch.bfloat16, False, False),
        (0.03, torch.float32, True, False),
    ],
)
def test_a_trained_layer_of_few_nonzeros_in_float32_uses_it(
    kept: float, dtype: torch.dtype, frozen: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []

    def spy(*arguments: Any) -> Tensor:
        used.append(True)
        return linear_by_nonzeros(*arguments)

    monkeypatch.setattr(sparse_linear, "linear_by_nonzeros", spy)
    linear = layer(20, 30, kept, torch.Generator().manual_seed(0)).to(dtype).requires_grad_(not frozen)
    x_ti = torch.randn(4, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(linear(x_ti), F.linear(x_ti, linear.weight, linear.bias))
    assert bool(used) == expected
    used.clear()
    linear.eval()(x_ti)
    assert not used


@pytest.mark.parametrize(("kept", "expected"), [(0.03, True), (0.5, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_it_is_as_exact_as_the_dense_product(
    dtype: torch.dtype, kept: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []

    def spy(*arguments: Any) -> Tensor:
        used.append(True)
        return linear_by_nonzeros(*arguments)

    monkeypatch.setattr(sparse_linear, "linear_by_nonzeros", spy)
    generator = torch.Generator().manual_seed(0)
    linear = Linear(60, 50)
    linear.weight.data *= torch.rand(50, 60, generator=generator) < kept
    x_ti, weights_to = torch.randn(40, 60, generator=generator), torch.randn(40, 50, generator=generator)
    exact = results(linear, x_ti, weights_to, F.linear)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(linear, x_ti.to(dtype), weights_to, lambda x, weight, bias: linear(x))
    assert bool(used) == expected
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, dtype, torch.float32, torch.float32]
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.03, atol=0.05)


def test_a_model_trained_by_nonzeros_has_the_same_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens_bt, targets_bt = random_tokens(3, 9), random_tokens(3, 9, seed=1)
    gradients = []
    for most in (0.0, 1.0):
        monkeypatch.setattr(sparse_linear, "MOST", most)
        model = small_model().requires_grad_().train()
        for weight, _ in model.sparse_weights().values():
            weight.data *= torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
        loss = model.loss(tokens_bt, targets_bt)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_no_rows_give_no_rows() -> None:
    weight_oi, bias_o = torch.eye(3, 4), torch.zeros(3)
    assert linear_by_nonzeros(torch.zeros(2, 0, 4), weight_oi, bias_o).shape == (2, 0, 3)
    assert FrozenProduct(weight_oi, bias_o)(torch.zeros(0, 4)).shape == (0, 3)


def test_shapes_that_do_not_fit_are_told() -> None:
    weight_oi, bias_o = torch.randn(5, 4), torch.randn(5)
    with pytest.raises(ValueError, match="3 inputs, but the weight has 4"):
        linear_by_nonzeros(torch.randn(2, 3), weight_oi, bias_o)
    with pytest.raises(ValueError, match="4 biases, but 5 outputs"):
        linear_by_nonzeros(torch.randn(2, 4), weight_oi, bias_o[:4])
    with pytest.raises(ValueError, match="4 biases, but 5 outputs"):
        FrozenProduct(weight_oi, bias_o[:4])
    with pytest.raises(ValueError, match="5 inputs, but the weight has 4"):
        FrozenProduct(weight_oi, bias_o)(torch.randn(2, 5))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_second_derivative_is_refused(frozen: bool) -> None:
    x_ti, weight_oi, bias_o = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4), torch.randn(5)
    y_to = FrozenProduct(weight_oi, bias_o)(x_ti) if frozen else linear_by_nonzeros(x_ti, weight_oi, bias_o)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y_to.sum(), x_ti, create_graph=True)
