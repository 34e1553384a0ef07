"""S1 and S2 of one projection: exact counts, the largest stay, ties to the lower index, no revival."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from twelve_steps import new_model

from sparsity_lab.training.sparsity import make_sparsifier
from sparsity_lab.training.sparsity.magnitude import Config as Magnitude
from sparsity_lab.training.sparsity.magnitude import kept_count, kept_weights, project


def random_weight(rows: int, columns: int, seed: int, levels: int) -> Tensor:
    """Entries of few different magnitudes, so full of ties; none is zero."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = torch.randint(1, levels + 1, (rows, columns), generator=generator)
    return magnitudes * torch.where(torch.rand(rows, columns, generator=generator) < 0.5, -0.25, 0.25)


def projected(weight: Tensor, fraction: float, axis: int | None = None, at_least: int = 0) -> Tensor:
    weight = weight.clone()
    project(weight, fraction, axis, at_least)
    return weight


shapes = {
    "rows": st.integers(1, 9),
    "columns": st.integers(1, 9),
    "seed": st.integers(0, 999),
    "levels": st.sampled_from([1, 3, 1000]),
    "fraction": st.floats(0, 0.99),
    "axis": st.sampled_from([None, 0, 1]),
    "at_least": st.integers(0, 5),
}


@given(**shapes)
def test_s1_the_count_is_exact_and_channels_keep_their_share(
    rows: int, columns: int, seed: int, levels: int, fraction: float, axis: int | None, at_least: int
) -> None:
    weight = random_weight(rows, columns, seed, levels)
    after = projected(weight, fraction, axis, at_least)
    if axis is None:
        expected, share = round(fraction * weight.numel()), 0
    else:
        share = min(at_least, weight.shape[1 - axis])
        expected = max(round(fraction * weight.numel()), weight.shape[axis] * share)
        assert (after.count_nonzero(1 - axis) >= share).all()
    assert after.count_nonzero() == expected


@given(**shapes)
def test_s2_projection_is_idempotent_keeps_the_largest_and_revives_nothing(
    rows: int, columns: int, seed: int, levels: int, fraction: float, axis: int | None, at_least: int
) -> None:
    weight = random_weight(rows, columns, seed, levels)
    after = projected(weight, fraction, axis, at_least)
    assert torch.equal(projected(after, fraction, axis, at_least), after)
    assert torch.equal(after[after != 0], weight[after != 0])
    less = projected(after, fraction / 2, axis, at_least)
    assert not less[after == 0].any()
    by_channel = (weight if axis != 1 else weight.T, after if axis != 1 else after.T)
    if axis is None:
        gone, kept = weight[after == 0].abs(), weight[after != 0].abs()
        assert not len(gone) or not len(kept) or gone.max() <= kept.min()
        return
    for before_n, after_n in zip(*by_channel, strict=True):
        gone, kept = before_n[after_n == 0].abs(), before_n[after_n != 0].abs()
        assert not len(gone) or not len(kept) or gone.max() <= kept.min()


@given(**shapes)
def test_the_kernel_keeps_what_the_reference_keeps(
    rows: int, columns: int, seed: int, levels: int, fraction: float, axis: int | None, at_least: int
) -> None:
    weight = random_weight(rows, columns, seed, levels)
    by_channel = weight.view(1, -1) if axis is None else weight.movedim(axis, 0)
    at_least = 0 if axis is None else min(at_least, by_channel.shape[1])
    kept_cn = kept_weights(
        by_channel, kept_count(weight.numel(), fraction, len(by_channel), at_least), at_least
    )
    expected = torch.where(kept_cn, by_channel, 0)
    after = projected(weight, fraction, axis, at_least)
    assert torch.equal(after.view(1, -1) if axis is None else after.movedim(axis, 0), expected)


@pytest.mark.parametrize(("axis", "at_least"), [(None, 0), (0, 4), (1, 4), (0, 200)])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.03, 0.5, 0.98])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "columns", "float64"])
def test_large_weights_keep_what_the_reference_keeps(
    kind: str, fraction: float, axis: int | None, at_least: int
) -> None:
    """Where a sample guides the selection, and where it misleads."""
    weight = torch.randn(130, 150, generator=torch.Generator().manual_seed(0))
    if kind == "ties":
        weight = (3 * weight).round() / 3
    elif kind == "zeros":
        weight = weight * (weight.abs() > 2)
    elif kind == "columns":
        weight[:, 37] *= 1000  # in a sample of its own, or in none
    elif kind == "float64":
        weight = weight.double()
    by_channel = weight.view(1, -1) if axis is None else weight.movedim(axis, 0)
    at_least = min(at_least, by_channel.shape[1])
    keep = kept_count(weight.numel(), fraction, len(by_channel), at_least)
    expected = torch.where(kept_weights(by_channel, keep, at_least), by_channel, 0)
    after = projected(weight, fraction, axis, at_least)
    assert torch.equal(after.view(1, -1) if axis is None else after.movedim(axis, 0), expected)


def test_s1_ties_go_to_the_lower_index() -> None:
    assert projected(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), 0.5).tolist() == [[1.0, -1.0], [0.0, 0.0]]
    ones = torch.ones(3, 2)
    assert projected(ones, 0.0, 0, 1).tolist() == [[1, 0], [1, 0], [1, 0]]
    assert projected(ones, 0.0, 1, 1).tolist() == [[1, 1], [0, 0], [0, 0]]
    assert projected(ones, 2 / 3, 0, 1).tolist() == [[1, 1], [1, 0], [1, 0]]


def test_at_least_holds_on_the_right_axis_by_hand() -> None:
    weight = torch.tensor([[9.0, 8.0, 7.0], [1.0, 2.0, 3.0]])
    assert projected(weight, 0.5).tolist() == [[9, 8, 7], [0, 0, 0]]
    assert projected(weight, 0.5, 0, 1).tolist() == [[9, 8, 0], [0, 0, 3]]
    assert projected(weight, 0.5, 1, 1).tolist() == [[9, 8, 7], [0, 0, 0]]
    assert projected(weight, 0.1, 0, 2).tolist() == [[9, 8, 0], [0, 2, 3]]
    assert projected(weight, 0.1, 1, 9).tolist() == weight.tolist()  # as many as a channel has


def test_a_bias_and_strided_weights_are_projected_in_place() -> None:
    bias = torch.tensor([0.5, -2.0, 1.0, 0.0])
    project(bias, 0.5)
    assert bias.tolist() == [0.0, -2.0, 1.0, 0.0]
    transposed = torch.tensor([[9.0, 1.0], [8.0, 2.0], [7.0, 3.0]]).T
    project(transposed, 0.5, 0, 1)
    assert transposed.tolist() == [[9, 8, 0], [0, 0, 3]]


def test_at_fraction_1_nothing_is_touched() -> None:
    weight = random_weight(3, 4, 0, 5)
    assert torch.equal(projected(weight, 1.0, 0, 4), weight)


def test_the_kept_fraction_reaches_its_final_value() -> None:
    model = new_model()
    total = sum(weight.numel() for weight, _ in model.sparse_weights().values())
    by_share = make_sparsifier(Magnitude(kept_fraction=0.1, anneal_until=0.8), model, 100, 0)
    by_count = make_sparsifier(Magnitude(nonzeros=total // 10, anneal_until=0.8), model, 100, 0)
    assert [by_share.kept_fraction(step) for step in (0, 40, 80, 100)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert by_count.kept_fraction(100) == pytest.approx(0.1, rel=1e-2)
