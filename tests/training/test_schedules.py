"""The schedules at their end points, and the sharkfin's shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsity_lab.training.module import sharkfin
from sparsity_lab.training.sparsity.magnitude import kept_fraction


def test_kept_fraction_falls_in_a_line_and_then_stays() -> None:
    points = [kept_fraction(progress, 0.2, 0.5) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert points == pytest.approx([1, 0.6, 0.2, 0.2, 0.2])


def test_kept_fraction_at_its_limits() -> None:
    assert [kept_fraction(progress, 0.2, 0.0) for progress in (0, 0.5, 1)] == [0.2] * 3
    assert kept_fraction(0.5, 0.2, 1.0) == pytest.approx(0.6)
    assert kept_fraction(1.0, 0.2, 1.0) == pytest.approx(0.2)


@given(progress=st.floats(0, 1), anneal_until=st.floats(0, 1))
def test_s3_kept_fraction_of_a_target_of_1_is_exactly_1(progress: float, anneal_until: float) -> None:
    assert kept_fraction(progress, 1.0, anneal_until) == 1.0


def test_sharkfin_rises_to_the_warm_up_and_falls_to_zero() -> None:
    assert [sharkfin(p, 0.2, 1.0) for p in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert sharkfin(0, 0.0, 1.0) == 1.0


def test_sharkfin_grows_while_weights_are_annealed() -> None:
    assert sharkfin(0.5, 0.01, 0.25) == pytest.approx(2 * sharkfin(0.5, 0.01, 1.0))
    fin = [sharkfin(step / 100, 0.01, kept_fraction(step / 100, 0.01, 0.5)) for step in range(101)]
    assert fin.index(max(fin)) == 50  # the tip stands where the annealing ends
    assert max(fin) == pytest.approx(10 * 0.5 / 0.99)
    assert fin[-1] == 0
