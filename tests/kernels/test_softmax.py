"""The softmax's vectors equal the formulas for one float, to the bit, NaN and infinity included."""

from typing import Any

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from sparsity_lab.kernels.cpu.simd import LANES, exp2
from sparsity_lab.kernels.cpu.softmax import add_powers, raise_maxima, softmax_gradient

KEY, QUERY = 1, LANES  # the vector that is changed


@numba.njit(fastmath={"contract"})  # as the kernels
def changed(s_ji: Any, d_ji: Any, most_i: Any, total_i: Any, out_i: Any) -> None:
    softmax_gradient(s_ji, d_ji, most_i, out_i, np.float32(0.3), KEY, QUERY)
    s_ji[0] = s_ji[2]
    add_powers(s_ji, most_i, total_i, 0, QUERY)
    raise_maxima(s_ji, most_i, 2, QUERY)


@numba.njit(fastmath={"contract"})  # as the kernels
def expected(s_ji: Any, d_ji: Any, most_i: Any, total_i: Any, out_i: Any) -> None:
    s_ji[0] = s_ji[2]
    for i in range(QUERY, QUERY + LANES):
        s_ji[KEY, i] = exp2(s_ji[KEY, i] - most_i[i])
        d_ji[KEY, i] = s_ji[KEY, i] * (d_ji[KEY, i] - out_i[i]) * np.float32(0.3)
        s_ji[0, i] = exp2(s_ji[0, i] - most_i[i])
        total_i[i] += s_ji[0, i]
        most_i[i] = most_i[i] if most_i[i] > s_ji[2, i] else s_ji[2, i]


@pytest.mark.parametrize("special", [0.0, 90.0, -125.7, -300.0, -np.inf, np.nan])
def test_vectors_equal_single_floats(special: float) -> None:
    random = np.random.default_rng(0)
    s_ji, d_ji = 9 * random.standard_normal((2, 3, 3 * LANES)).astype(np.float32)
    most_i, total_i, out_i = 9 * random.standard_normal((3, 3 * LANES)).astype(np.float32)
    s_ji[:, QUERY + 3] = special
    ours = [array.copy() for array in (s_ji, d_ji, most_i, total_i, out_i)]
    theirs = [array.copy() for array in ours]
    changed(*ours)
    expected(*theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (ours[1] != d_ji).sum() == LANES  # nothing else has changed


def test_other_floats_are_refused() -> None:
    with pytest.raises(TypingError, match="float64, float32: must be float32"):
        numba.njit(lambda s, most: raise_maxima(s, most, 0, 0))(
            np.zeros((1, LANES)), np.zeros(LANES, np.float32)
        )
