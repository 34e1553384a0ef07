"""Tiles in registers: every rectangle of every shape, and nothing beside it; powers of two."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsity_lab.kernels.cpu import simd
from sparsity_lab.kernels.cpu.simd import LANES, TILE, as_array, exp2, multiply_tile, transpose

PLACE, SIZE = st.integers(0, 9), st.integers(0, 20)
TYPES = st.sampled_from([torch.float32, torch.bfloat16])


@given(row=PLACE, column=PLACE, rows=SIZE, columns=SIZE, to=PLACE, at=PLACE, read=TYPES, written=TYPES)
def test_the_rectangle_is_transposed_and_the_rest_left(
    row: int,
    column: int,
    rows: int,
    columns: int,
    to: int,
    at: int,
    read: torch.dtype,
    written: torch.dtype,
) -> None:
    source = torch.randn(30, 31, generator=torch.Generator().manual_seed(0)).to(read)
    source[::7, ::5] = torch.inf
    target = torch.full((32, 33), -1.0, dtype=written)
    expected = target.clone()
    expected[to : to + columns, at : at + rows] = source[row : row + rows, column : column + columns].T
    transpose(as_array(source), row, column, rows, columns, as_array(target), to, at)
    assert torch.equal(target, expected)


@pytest.mark.parametrize("instruction", [False, True])
def test_rounding_to_bfloat16_is_torchs(instruction: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the processor's instruction, if it has one, and without."""
    monkeypatch.setattr(simd, "BFLOAT_INSTRUCTIONS", instruction and simd.BFLOAT_INSTRUCTIONS)
    move = numba.njit(transpose.py_func)  # compiled anew
    generator = torch.Generator().manual_seed(1)
    exponent = torch.randint(-110, 120, (8, 500), generator=generator).float()
    source = torch.randn(8, 500, generator=generator) * 2**exponent
    source[:, :4] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    source[:, 4:8] = 1 + torch.tensor([1, 3, 5, 7]) / 2**8  # ties
    source[:, 8] = torch.nan
    target = torch.zeros(500, 8, dtype=torch.bfloat16)
    move(as_array(source), 0, 0, 8, 500, as_array(target), 0, 0)
    torch.testing.assert_close(target.T, source.bfloat16(), rtol=0, atol=0, equal_nan=True)


@numba.njit
def multiply(
    a: np.ndarray, b: np.ndarray, row: int, inner: int, column: int, depth: int, c: np.ndarray, add: bool
) -> None:
    multiply_tile(a, (row, inner), b, (inner, column), depth, c, (row, column), add)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("row", "inner", "column", "depth"), [(0, 0, 0, 0), (0, 0, 0, 1), (3, 2, 5, 13)])
def test_a_tile_of_a_product_and_the_rest_left(
    row: int, inner: int, column: int, depth: int, order: str, add: bool
) -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(TILE + 6, 20)).astype(np.float32)
    a = np.asfortranarray(a) if order == "F" else a
    b = generator.normal(size=(20, LANES + 9)).astype(np.float32)
    c = generator.normal(size=(TILE + 6, LANES + 9)).astype(np.float32)
    if not add:
        c[row : row + TILE, column : column + LANES] = np.nan  # overwritten, whatever was there
    expected, rows, columns = c.copy(), slice(row, row + TILE), slice(column, column + LANES)
    product = a[rows, inner : inner + depth] @ b[inner : inner + depth, columns]
    expected[rows, columns] = product + (c[rows, columns] if add else 0)
    multiply(a, b, row, inner, column, depth, c, add)
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)


@numba.njit
def powers(x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    for index in range(x.size):
        y[index] = exp2(x[index])
    return y


def test_powers_of_two() -> None:
    x = np.append(np.linspace(-126, 0, 100_003), [-0.5, -1.5, -1e-30]).astype(np.float32)
    np.testing.assert_allclose(powers(x), np.exp2(x.astype(np.float64)), rtol=2.4e-7)
    ends = np.array([-126.01, -1e30, -np.inf, 1e30, np.inf, np.nan, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(powers(ends), np.array([0, 0, 0, 1, 1, np.nan, 1], dtype=np.float32))
