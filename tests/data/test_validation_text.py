"""Losses by component and their standard errors, against simulation."""

import numpy as np
import pytest
import torch

from sparsity_lab.data.validation_text import ValidationText


def text(component_wt: np.ndarray, names: tuple[str, ...]) -> ValidationText:
    w, t = component_wt.shape
    return ValidationText(torch.zeros(w, t + 1, dtype=torch.int64), component_wt.astype(np.uint8), names)


def test_means_by_component_and_of_the_mixture() -> None:
    component = np.array([[0, 0, 1], [1, 1, 1]])
    found = text(component, ("grammar", "real")).estimates(np.array([[1.0, 3.0, 10.0], [20.0, 30.0, 40.0]]))
    assert found["grammar"].loss == 2
    assert found["real"].loss == 25
    assert found[""].loss == pytest.approx(104 / 6)


def test_a_component_without_targets_is_left_out() -> None:
    found = text(np.zeros((4, 5)), ("grammar", "real")).estimates(np.ones((4, 5)))
    assert found.keys() == {"grammar", ""}
    assert found[""].error == 0


@pytest.mark.parametrize("shared", [False, True])
def test_the_standard_error_is_the_spread_over_samples(shared: bool) -> None:
    """Documents in two windows (`shared`) make neighbours alike: the error grows, and is seen to grow."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        of_document = np.repeat(rng.normal(0, 1, 160), 2) if shared else rng.normal(0, 1, 320)
        losses = of_document[:, None] + rng.normal(0, 0.5, (320, 4))
        found = text(np.zeros((320, 4)), ("",)).estimates(losses)
        means.append(found[""].loss)
        errors.append(found[""].error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


def test_the_mixtures_error_is_that_within_components() -> None:
    """Between two components of fixed proportions there is no uncertainty, however far apart they lie."""
    component = np.repeat([0, 0, 0, 1], 80)[np.random.default_rng(0).permutation(320)][:, None].repeat(4, 1)
    losses = np.where(component == 1, 6.0, 1.0)
    found = text(component, ("grammar", "real")).estimates(losses)
    assert found[""].error == pytest.approx(0, abs=1e-9)
    assert found[""].loss == pytest.approx(2.25)
