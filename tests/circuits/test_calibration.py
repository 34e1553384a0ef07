"""Calibration against closed forms: to know nothing costs ln 2; the logits' scale and shift do not matter."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from sparsity_lab.circuits.circuit import Calibration
from sparsity_lab.circuits.evaluator import calibrate, score, two_way_loss


def both(difference: list[float], label: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(difference), torch.tensor(label)


def calibrated(logit_diff_b: Tensor, label_b: Tensor) -> float:
    return score(logit_diff_b, label_b, calibrate(logit_diff_b, label_b)).selection_loss


def test_two_way_loss_by_hand() -> None:
    loss = two_way_loss(*both([2.0, 2.0], [0, 1]))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2)
    logits_b2 = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    label_b = torch.arange(9) % 2
    expected = torch.nn.functional.cross_entropy(logits_b2, label_b)
    torch.testing.assert_close(two_way_loss(logits_b2[:, 0] - logits_b2[:, 1], label_b), expected)


@pytest.mark.parametrize("difference", [0.0, 5.0, -3e4])
def test_constant_logits_cost_ln_2(difference: float) -> None:
    assert calibrated(*both([difference] * 8, [0, 1] * 4)) == pytest.approx(math.log(2), abs=1e-6)


def test_logits_that_say_nothing_cost_ln_2() -> None:
    assert calibrated(*both([1.0, 2.0, 7.0, 1.0, 2.0, 7.0], [0, 0, 0, 1, 1, 1])) == pytest.approx(
        math.log(2), abs=1e-6
    )


def test_separable_logits_cost_next_to_nothing_even_reversed_and_shifted() -> None:
    right = [100.2, 100.3, 100.25, 100.1, 100.05, 100.12]
    assert calibrated(*both(right, [0, 0, 0, 1, 1, 1])) < 0.02
    assert calibrated(*both(right, [1, 1, 1, 0, 0, 0])) < 0.02


def test_the_optimum_has_a_closed_form_for_two_values() -> None:
    # of 4 rows at +1, three are right; of 4 at -1, three: the best loss is the entropy of 1/4
    logit_diff_b, label_b = both([1.0] * 4 + [-1.0] * 4, [0, 0, 0, 1, 1, 1, 1, 0])
    calibration = calibrate(logit_diff_b, label_b)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert calibrated(logit_diff_b, label_b) == pytest.approx(entropy, abs=1e-6)
    assert calibration.scale == pytest.approx(math.log(3), abs=1e-3)
    assert calibration.shift == pytest.approx(0, abs=1e-3)


def best_on_a_grid(logit_diff_b: Tensor, label_b: Tensor, largest_scale: float) -> float:
    """The least loss among scales, at most `largest_scale` standard deviations, and thresholds on a grid."""
    standard_b = (logit_diff_b - logit_diff_b.mean()) / logit_diff_b.std(correction=0)
    scale_s = torch.linspace(-largest_scale, largest_scale, 81, dtype=torch.float64)
    threshold_t = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
    logit_stb = scale_s[:, None, None] * (standard_b - threshold_t[:, None])
    return softplus(torch.where(label_b == 0, -logit_stb, logit_stb)).mean(dim=-1).min().item()


@given(
    seed=st.integers(0, 100),
    scale=st.floats(0.1, 1e3) | st.floats(-1e3, -0.1),
    shift=st.floats(-50, 50),
    useful=st.floats(0, 2),
)
@example(seed=61, scale=-1.0, shift=0.0, useful=1.75)  # separable: no best fit exists
@example(seed=86, scale=-1.0, shift=0.0, useful=1.5)  # separable by a thousandth: few steps get far
@example(seed=17, scale=1e3, shift=50.0, useful=2.0)  # separable, and the raw loss is already zero
def test_calibrated_loss_does_not_depend_on_the_logits_scale_and_shift(
    seed: int, scale: float, shift: float, useful: float
) -> None:
    """A positive scale changes nothing. A negative one starts the search on the wrong side.

    Either way no calibration within 20 standard deviations is better. That is the whole optimum unless the
    samples are nearly separable; if they are separable, larger scales only approach zero.
    """
    generator = torch.Generator().manual_seed(seed)
    label_b = torch.arange(60) % 2
    logit_diff_b = torch.randn(60, generator=generator, dtype=torch.float64) + useful * (1 - 2 * label_b)
    other_b = logit_diff_b * scale + shift
    expected, found = calibrated(logit_diff_b, label_b), calibrated(other_b, label_b)
    if scale > 0:
        assert found == pytest.approx(min(expected, two_way_loss(other_b, label_b).item()), abs=1e-9)
    bound = best_on_a_grid(logit_diff_b, label_b, largest_scale=20.0) + 1e-6
    assert expected <= bound
    assert found <= bound
    assert expected <= math.log(2) + 1e-6
    assert expected <= two_way_loss(logit_diff_b, label_b).item() + 1e-6


def test_scores_by_hand() -> None:
    scores = score(*both([3.0, -1.0, 2.0, -4.0], [0, 0, 1, 1]), Calibration(scale=0.0, shift=1.0))
    assert scores.accuracy == 0.5
    wrong = [math.log(1 + math.exp(-x)) for x in (3.0, -1.0, -2.0, 4.0)]
    assert scores.raw_loss == pytest.approx(sum(wrong) / 4)
    assert scores.selection_loss == pytest.approx(
        (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    )


def test_calibration_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert calibrate(*both([1.0, 2.0, -1.0, -2.0], [0, 0, 1, 1])).scale > 0


def test_rounding_is_not_turned_into_an_answer() -> None:
    """A circuit's logits are constant but for float noise, which the prompts' lengths may correlate with."""
    label_b = torch.arange(200) % 2
    noise_b = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for size in (1e-7, 1e-6):
        logit_diff_b = 3.0 + size * (noise_b + 3.0 * (1 - 2 * label_b))
        assert calibrated(logit_diff_b, label_b) == pytest.approx(math.log(2), abs=0.02)
    assert calibrated(3.0 + 1e-2 * (1 - 2 * label_b), label_b) < 0.02


def test_the_calibrated_loss_never_exceeds_the_raw_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    for useful in (0.0, 1.0, 30.0):
        label_b = torch.arange(40) % 2
        logit_diff_b = torch.randn(40, generator=generator) + useful * (1 - 2 * label_b)
        assert calibrated(logit_diff_b, label_b) <= two_way_loss(logit_diff_b.double(), label_b).item()
