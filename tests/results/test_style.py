"""A logarithmic axis shows numbers whatever its range."""

import pytest

from sparsity_lab.results.drawing import Figure
from sparsity_lab.results.style import log_axis


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (403, 622),
        (1, 1),
        (1, 2),
        (0.9, 1.1),
        (50, 50),
        (1_020_000, 1_080_000),
        (10, 20_000),
        (61_200, 61_800),
    ],
)
def test_at_least_two_different_numbers_are_in_view(low: float, high: float, which: str) -> None:
    axes = Figure().subplots()
    axes.plot([low, high], [low, high])
    log_axis(axes, which)
    axis = axes.xaxis if which == "x" else axes.yaxis
    first, last = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_majorticklocs() if first <= tick <= last]
    labels = axis.get_major_formatter().format_ticks(ticks)
    assert len(ticks) >= 2
    assert len(set(labels)) == len(labels)
    assert all(labels)


def test_a_wide_axis_has_the_usual_ticks() -> None:
    axes = Figure().subplots()
    axes.plot([10, 20_000], [1, 2])
    log_axis(axes, "x")
    labels = axes.xaxis.get_major_formatter().format_ticks([10, 20, 50, 5_000, 20_000])
    assert labels == ["10", "20", "50", "5k", "20k"]
