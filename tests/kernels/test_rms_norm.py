"""RMSNorm by the kernel equals PyTorch's, forward and backward, at any shape and number of threads."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.kernels.cpu.rms_norm import rms_norm
from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.norm import RMSNorm


def results(norm: Callable[..., Tensor], positions: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Output and gradients, on inputs whose second row is zero and whose layout is not contiguous."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(channels, positions, 2, generator=generator).permute(1, 2, 0).to(dtype)
    x[1:2] = 0
    x.requires_grad_()
    weight_c = torch.randn(channels, generator=generator).to(dtype).requires_grad_()
    y = norm(x, weight_c)
    y.backward(torch.randn(y.shape, generator=generator).to(dtype))
    assert x.grad is not None
    assert weight_c.grad is not None
    return [y.detach(), x.grad, weight_c.grad]


@given(positions=st.integers(0, 150), channels=st.integers(1, 70), eps=st.sampled_from([1e-4, 1.0]))
def test_it_equals_the_plain_norm(positions: int, channels: int, eps: float) -> None:
    found = results(lambda x, weight_c: rms_norm(x, weight_c, eps), positions, channels, torch.float32)
    exact = results(
        lambda x, weight_c: F.rms_norm(x, (channels,), weight_c, eps), positions, channels, torch.float64
    )
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_a_row_without_a_mean_square_is_divided_as_by_pytorch() -> None:
    x, weight_c = torch.zeros(2, 3), torch.ones(3)
    assert torch.equal(rms_norm(x, weight_c, 0.0).isnan(), F.rms_norm(x, (3,), weight_c, 0.0).isnan())


@pytest.mark.parametrize("weights", [3, 5])
def test_another_number_of_weights_is_told(weights: int) -> None:
    with pytest.raises(ValueError, match=rf"4 channels, but \({weights},\) weights"):
        rms_norm(torch.ones(2, 4), torch.ones(weights), 1e-6)


def test_the_number_of_threads_changes_nothing() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(results(lambda x, weight_c: rms_norm(x, weight_c, 1e-6), 333, 40, torch.float32))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_a_trained_norm_in_float32_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, x = RMSNorm(8, 1e-6), torch.randn(3, 8)
    assert kernel_for("rms_norm", x, norm.weight, 1e-6) is rms_norm
    assert kernel_for("rms_norm", x.double(), norm.weight, 1e-6) is None
    used: list[bool] = []

    def spy(operation: str, *arguments: object) -> None:
        used.append(operation == "rms_norm")

    monkeypatch.setattr("sparsity_lab.model.norm.kernel_for", spy)
    norm(x)
    assert used == [True]
    norm.eval()(x)
    norm.train().requires_grad_(False)(x)
    assert used == [True]


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(rms_norm(x, torch.ones(4), 1e-6).sum(), x, create_graph=True)
