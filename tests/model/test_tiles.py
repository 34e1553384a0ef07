"""Transposing by tiles: every rectangle of every shape, and nothing beside it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparsity_lab.model.tiles import transpose

PLACE, SIZE = st.integers(0, 9), st.integers(0, 20)


@given(row=PLACE, column=PLACE, rows=SIZE, columns=SIZE, to=PLACE, at=PLACE)
def test_the_rectangle_is_transposed_and_the_rest_left(
    row: int, column: int, rows: int, columns: int, to: int, at: int
) -> None:
    source = np.arange(30 * 31, dtype=np.float32).reshape(30, 31)
    target = np.full((32, 33), -1, dtype=np.float32)
    expected = target.copy()
    expected[to : to + columns, at : at + rows] = source[row : row + rows, column : column + columns].T
    transpose(source, row, column, rows, columns, target, to, at)
    np.testing.assert_array_equal(target, expected)
