"""The ratios along the dense lower envelope and their bootstrap, on numbers small enough to work by hand."""

import math

import numpy as np
import pytest

from analysis.envelope import (
    DRAWS,
    Sample,
    along_envelope,
    average,
    bootstrap,
    eligible,
    families,
    interval,
    logs,
    pick_clusters,
)

TASKS = ["a", "b", "c"]


def sample(loss: float | list[float], *sizes: dict[str, int], tasks: list[str] = TASKS) -> Sample:
    return Sample(np.atleast_1d(np.array(loss, dtype=float)), logs(sizes, tasks))


def compare(sparse: Sample, *dense: Sample) -> tuple[float, int, int]:
    """The ratio, and the dense models below and above."""
    averaged = [average(one) for one in (sparse, *dense)]
    found = along_envelope(averaged[0], averaged[1:], np.ones((1, sparse.log_st.shape[1])))
    return math.exp(found.log_b[0]), int(found.below_b[0]), int(found.above_b[0])


LOW = sample(1.6, {"a": 400, "b": 100, "c": 70})
HIGH = sample(2.0, {"a": 100, "b": 100, "c": 70})
SPARSE = sample(1.8, {"a": 10, "b": 4})


def test_half_way_in_loss_sizes_are_interpolated_in_their_logs() -> None:
    """A dense model needs sqrt(400·100) = 200 edges for a, 100 for b: 20 and 25 times."""
    assert compare(SPARSE, LOW, HIGH) == (pytest.approx(math.sqrt(20 * 25)), 0, 1)
    quarter = sample(1.7, {"a": 10})
    assert compare(quarter, LOW, HIGH)[0] == pytest.approx(400**0.75 * 100**0.25 / 10)


def test_at_the_very_loss_of_a_dense_model_it_alone_is_compared() -> None:
    assert compare(sample(2.0, {"a": 10}), LOW, HIGH) == (pytest.approx(10), 1, 1)
    assert compare(sample(1.6, {"a": 10}), LOW, HIGH) == (pytest.approx(40), 0, 0)


def test_a_dense_model_that_another_one_beats_in_both_does_not_count() -> None:
    undertrained = sample(1.85, {"a": 9000, "b": 9000, "c": 9000})
    oversized = sample(1.75, {"a": 9000, "b": 9000, "c": 9000})
    alone = compare(SPARSE, LOW, HIGH)
    assert compare(SPARSE, LOW, HIGH, undertrained, oversized) == (alone[0], 0, 1)


def test_a_smaller_and_better_dense_model_stands_for_all_above_it() -> None:
    """A dense model of loss 1.7 with fewer edges than HIGH is the envelope up to the largest dense loss."""
    best = sample(1.7, {"a": 50, "b": 40, "c": 70})
    assert compare(SPARSE, LOW, HIGH, best) == (pytest.approx(math.sqrt(5 * 10)), 2, 2)


@pytest.mark.parametrize("loss", [1.59, 2.01])
def test_nothing_is_extrapolated(loss: float) -> None:
    assert math.isnan(compare(sample(loss, {"a": 10}), LOW, HIGH)[0])


def test_seeds_are_averaged_in_loss_and_log_size() -> None:
    two = sample([1.9, 2.1], {"a": 50, "b": 100}, {"a": 200})  # loss 2, a 100, b 100 of the seed that has it
    assert compare(SPARSE, LOW, two)[0] == pytest.approx(compare(SPARSE, LOW, HIGH)[0])


def test_a_dense_model_that_shares_few_tasks_is_not_eligible() -> None:
    sparse = sample(1.8, dict.fromkeys("abc", 9))
    assert eligible(sparse, [LOW, sample(2.0, {"a": 1}), sample(2.0, {"a": 1, "b": 1}), sample(2.0, {})]) == [
        0,
        2,
    ]
    assert eligible(sparse, []) == []


def test_twins_are_one_family() -> None:
    tasks = ["set_or_string", "set_or_string_fixedvarname", "settle", "with_as", "with_open"]
    assert families(tasks) == ["set_or_string", "set_or_string", "settle", "with_as", "with_open"]


def test_the_tasks_of_a_cluster_are_drawn_together() -> None:
    times_bt = pick_clusters(["x", "y", "x"], np.random.default_rng(0), 50)
    assert (times_bt[:, 0] == times_bt[:, 2]).all()
    assert set((times_bt[:, 0] + times_bt[:, 1]).tolist()) == {2.0}
    assert len(set(times_bt[:, 0].tolist())) == 3


SIZES = [10, 20, 40, 15, 30, 25, 12, 33]
NAMES = list("abcdefgh")
ONE = sample(2.0, dict.fromkeys(NAMES, 1), tasks=NAMES)
MANY = sample(2.0, dict(zip(NAMES, SIZES, strict=True)), tasks=NAMES)


def test_the_bootstrap_is_the_same_every_time_and_covers_what_it_should() -> None:
    draws, outside = bootstrap(ONE, [MANY], NAMES, seed=3)
    assert outside == 0
    assert (draws == bootstrap(ONE, [MANY], NAMES, seed=3)[0]).all()
    assert (draws != bootstrap(ONE, [MANY], NAMES, seed=4)[0]).any()
    low, high = interval(draws)
    found = np.log(SIZES)
    half = 1.96 * found.std() / math.sqrt(len(found))  # normal approximation, near enough for eight tasks
    assert math.log(low) == pytest.approx(found.mean() - half, abs=0.06)
    assert math.log(high) == pytest.approx(found.mean() + half, abs=0.06)


def test_clusters_widen_the_interval_and_so_do_seeds() -> None:
    def width(draws: np.ndarray) -> float:
        return float(np.subtract(*np.percentile(draws, (97.5, 2.5))))

    plain = width(bootstrap(ONE, [MANY], NAMES)[0])
    twins = ["a", "b", "c", "d", "b", "b", "a", "c"]  # tasks of like sizes belong together
    assert width(bootstrap(ONE, [MANY], twins)[0]) > 1.2 * plain
    each = dict(zip(NAMES, SIZES, strict=True))
    seeds = sample(
        [2.0] * 3,
        each,
        {k: 2 * v for k, v in each.items()},
        {k: v // 2 for k, v in each.items()},
        tasks=NAMES,
    )
    assert width(bootstrap(ONE, [seeds], NAMES)[0]) > 1.2 * plain
    alike = sample([2.0] * 3, each, each, each, tasks=NAMES)
    assert width(bootstrap(ONE, [alike], NAMES)[0]) == pytest.approx(plain, rel=0.1)


def test_draws_outside_the_dense_range_are_counted_not_used() -> None:
    sparse = sample([1.9, 2.0, 2.2], *[dict.fromkeys(NAMES, 1)] * 3, tasks=NAMES)
    low = sample(1.5, dict.fromkeys(NAMES, 50), tasks=NAMES)
    draws, outside = bootstrap(sparse, [low, MANY], NAMES)
    assert 0.4 < outside < 0.8  # loss above 2.0 in every draw with more of 2.2 than of 1.9
    assert len(draws) == round(DRAWS * (1 - outside))
    assert not np.isnan(draws).any()
