"""The product by nonzeros equals the dense one, forward and backward, at any shape and kept fraction."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import random_tokens, small_model
from torch import Tensor

from sparsity_lab.model.sparse_product import Linear, multiply_by_nonzeros

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


def results(linear: Linear, x: Tensor, weights: Tensor) -> list[Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    linear.zero_grad()
    y = linear(x)
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
    dense = results(linear, x_ti, weights_to)
    linear.by_nonzeros = True
    for one, other in zip(results(linear, x_ti, weights_to), dense, strict=True):
        assert torch.equal(one, other)


def test_the_number_of_threads_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = Linear(70, 50)
    linear.by_nonzeros = True
    x_btc = torch.randn(3, 111, 70, generator=generator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = linear(x_btc)
        torch.set_num_threads(2)
        assert torch.equal(linear(x_btc), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_take_the_dense_product(dtype: torch.dtype) -> None:
    linear = Linear(6, 5).to(dtype)
    linear.by_nonzeros = True
    x_ti = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(linear(x_ti), torch.nn.functional.linear(x_ti, linear.weight, linear.bias))


def test_a_model_that_multiplies_by_nonzeros_has_the_same_loss_and_gradients() -> None:
    tokens_bt, targets_bt = random_tokens(3, 9), random_tokens(3, 9, seed=1)
    gradients = []
    for whether in (False, True):
        model = small_model().requires_grad_()
        for weight, _ in model.sparse_weights().values():
            weight.data *= torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
        multiply_by_nonzeros(model, whether)
        loss = model.loss(tokens_bt, targets_bt)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
