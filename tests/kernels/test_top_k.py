"""S4: AbsTopK keeps exactly k, the same k in the kernel and in the reference, forward and backward."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsity_lab.kernels.cpu import top_k as by_numba
from sparsity_lab.kernels.cpu.top_k import thresholds
from sparsity_lab.model import ops
from sparsity_lab.model.dispatch import kernel_for, plain_operations
from sparsity_lab.model.ops import largest, magnitude_bits

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernel is first imported
HAS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
OURS = ["numba", pytest.param("triton", marks=HAS_TRITON)]  # against the reference
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
AWKWARD = [0.0, -0.0, 1.0, -1.0, 1.0, 2.0, float("inf"), float("-inf"), float("nan"), 1e-40, -3e-3, 65000.0]


def abs_top_k(x: Tensor, k: int, implementation: str) -> Tensor:
    """`ops.abs_top_k` by one implementation, whatever the device."""
    if implementation == "reference":
        with plain_operations():
            return ops.abs_top_k(x, k)
    if k >= x.shape[-1]:
        return x
    x_nc = x.reshape(-1, x.shape[-1])
    if implementation == "triton":
        from sparsity_lab.kernels.gpu import top_k as by_triton

        return by_triton.abs_top_k(x_nc, k).view(x.shape)
    return by_numba.abs_top_k(x_nc, k).view(x.shape)


def bits(x: Tensor) -> list[bytes]:
    """Each entry's bytes, so that NaN equals NaN and -0 differs from 0."""
    x = x.contiguous()
    flat = x.view(torch.uint8).reshape(-1, x.element_size())
    return [bytes(row) for row in flat.tolist()]


def check_against_the_reference(implementation: str, x_nc: Tensor, k: int) -> None:
    """The implementation's output and gradient are, to the bit, those of the reference's choice."""
    kept_nc = largest(x_nc, k)
    x_nc = x_nc.clone().requires_grad_()
    y_nc = abs_top_k(x_nc, k, implementation)
    assert kept_nc.sum(-1).eq(min(k, x_nc.shape[1])).all()
    assert bits(y_nc.detach()) == bits(torch.where(kept_nc, x_nc.detach(), 0))
    grad_nc = torch.arange(1, x_nc.numel() + 1).view_as(x_nc).to(x_nc.dtype)
    y_nc.backward(grad_nc)
    assert x_nc.grad is not None
    assert bits(x_nc.grad) == bits(torch.where(kept_nc, grad_nc, 0))


@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from(AWKWARD) | st.floats(width=32), min_size=width, max_size=width),
            min_size=1,
            max_size=4,
        )
    ),
    k=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
)
@pytest.mark.parametrize("implementation", OURS)
def test_s4_kernel_equals_reference_on_narrow_awkward_rows(
    implementation: str, rows: list[list[float]], k: int, dtype: torch.dtype
) -> None:
    check_against_the_reference(implementation, torch.tensor(rows, dtype=torch.float64).to(dtype), k)


@given(
    seed=st.integers(0, 1000),
    width=st.integers(5, 200),
    share=st.floats(0.01, 0.99),
    levels=st.integers(1, 50),
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", OURS)
def test_s4_kernel_equals_reference_on_wide_rows_with_ties(
    implementation: str, dtype: torch.dtype, seed: int, width: int, share: float, levels: int
) -> None:
    random = np.random.default_rng(seed)
    x_nc = torch.from_numpy(random.integers(-levels, levels + 1, size=(2, width)) / 7.0).to(dtype)
    check_against_the_reference(implementation, x_nc, max(1, round(share * width)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", ["reference", *OURS])
def test_s4_distinct_magnitudes_agree_with_torch_topk(implementation: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    order_nc = torch.rand(6, 40, generator=generator).argsort(-1)
    x_nc = ((order_nc + 1) * torch.where(order_nc % 2 == 0, 1, -1)).to(dtype)
    kept_nc = x_nc.abs().topk(9, dim=-1).indices
    expected_nc = torch.zeros_like(x_nc).scatter(-1, kept_nc, x_nc.gather(-1, kept_nc))
    assert torch.equal(abs_top_k(x_nc, 9, implementation), expected_nc)


@pytest.mark.parametrize("implementation", ["reference", *OURS])
def test_s4_by_hand(implementation: str) -> None:
    nan, inf = float("nan"), float("inf")
    x = torch.tensor(
        [[1.0, -3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [inf, 5.0, nan, -inf], [2.0, 2.0, -2.0, 2.0]]
    )
    kept = [
        [0, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [1, 1, 0, 0],
    ]  # ties: the lower index; NaN before infinity
    assert torch.equal(largest(x, 2), torch.tensor(kept, dtype=torch.bool))
    expected = [[0.0, -3.0, 3.0, 0.0], [0.0] * 4, [inf, 0.0, nan, 0.0], [2.0, 2.0, 0.0, 0.0]]
    y = abs_top_k(x, 2, implementation)
    torch.testing.assert_close(y, torch.tensor(expected), equal_nan=True, rtol=0, atol=0)


def test_s4_k_at_or_above_the_width_changes_nothing() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert ops.abs_top_k(x, 4) is x
    assert ops.abs_top_k(x, 9) is x


def test_the_kernel_is_chosen_by_device() -> None:
    assert kernel_for("abs_top_k", torch.zeros(2, 3), 1) is by_numba.abs_top_k
    assert kernel_for("abs_top_k", torch.zeros(2, 3, device="meta"), 1) is None
    with plain_operations():
        assert kernel_for("abs_top_k", torch.zeros(2, 3), 1) is None


@pytest.mark.parametrize("k", [-1, 5])
def test_a_number_that_a_row_does_not_have_is_told(k: int) -> None:
    with pytest.raises(ValueError, match=f"k {k} of 4 channels"):
        by_numba.abs_top_k(torch.zeros(3, 4), k)


def test_a_second_derivative_is_refused_by_the_kernel_and_right_in_the_reference() -> None:
    def slope_of_cube(implementation: str) -> tuple[Tensor, Tensor]:
        x = torch.tensor([[1.0, -3.0, 2.0]], requires_grad=True)
        value = abs_top_k(x, 2, implementation).pow(3).sum()
        return x, torch.autograd.grad(value, x, create_graph=True)[0].sum()

    x, slope = slope_of_cube("reference")
    assert torch.autograd.grad(slope, x)[0].tolist() == [[0.0, -18.0, 12.0]]
    with pytest.raises(RuntimeError, match="no second derivative"):
        slope_of_cube("numba")


@pytest.mark.parametrize("implementation", ["reference", *OURS])
def test_s4_any_leading_shape_and_stride(implementation: str) -> None:
    x = torch.randn(7, 3, 5, 2, generator=torch.Generator().manual_seed(0)).transpose(0, 3).requires_grad_()
    y = abs_top_k(x, 3, implementation)
    kept = largest(x.detach().reshape(-1, 7), 3).view(x.shape)
    assert torch.equal(y, torch.where(kept, x, 0))
    grad = torch.randn(5, 3, 2, 7, generator=torch.Generator().manual_seed(1)).transpose(0, 2)
    y.backward(grad)
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(kept, grad, 0))


def test_s4_the_number_of_threads_changes_nothing() -> None:
    x = torch.randn(64, 33, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = abs_top_k(x, 8, "numba")
        torch.set_num_threads(2)
        assert torch.equal(abs_top_k(x, 8, "numba"), alone)
    finally:
        torch.set_num_threads(threads)


def test_magnitude_bits_order_as_magnitudes_do_and_nan_comes_last() -> None:
    x = torch.tensor([0.0, 1e-40, -1e-3, 1.0, -1.5, 1e30, float("-inf"), float("nan")])
    order = magnitude_bits(x)
    assert (order.diff() > 0).all()
    assert magnitude_bits(torch.tensor(-0.0)) == magnitude_bits(torch.tensor(0.0)) == 0


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 30),
    data=st.data(),
    share=st.floats(0, 1),
    dtype=st.sampled_from([np.int32, np.int64]),
)
def test_thresholds_mark_the_k_largest_of_each_row(
    rows: int, columns: int, data: st.DataObject, share: float, dtype: type
) -> None:
    number = st.integers(0, 6) | st.integers(0, 2**31 - 1)
    values = data.draw(
        st.lists(st.lists(number, min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
    limits = np.array(data.draw(st.lists(st.integers(-1, 2**31 - 1), min_size=rows, max_size=rows)))
    k, ties = round(share * columns), np.zeros(rows, dtype=np.int64)
    thresholds(np.array(values, dtype=dtype), k, limits, ties)
    for row, limit, tied in zip(values, limits, ties, strict=True):
        taken = sorted((v for v in row if v > limit), reverse=True) + [v for v in row if v == limit][:tied]
        assert taken == sorted(row, reverse=True)[:k]
