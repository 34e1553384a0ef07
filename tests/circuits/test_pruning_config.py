"""The shared settings of circuit finding: which targets they take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from micro import quick_pruning

from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError


@pytest.mark.parametrize("targets", [[], [0.3, 0.1], [0.1, 0.1], [0.0, 0.1], [-1.0]])
def test_targets_must_be_positive_ascending_and_different(targets: list[float]) -> None:
    with pytest.raises(UserError, match=r"pruning.targets"):
        validate(PruningConfig, {"targets": targets}, "pruning")


@pytest.mark.parametrize("targets", [[0.3, 0.1], [0.1, 0.1], [0.0, 0.1]])
def test_relative_targets_too_but_there_may_be_none(targets: list[float]) -> None:
    assert quick_pruning(relative_targets=[]).relative_targets == ()
    assert quick_pruning(relative_targets=[0.1, 0.15]).all_targets == quick_pruning().all_targets
    with pytest.raises(UserError, match=r"pruning.relative_targets"):
        validate(PruningConfig, {"relative_targets": targets}, "pruning")


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True), st.floats(0.01, 1))
def test_all_targets_hold_the_main_one(targets: list[float], target: float) -> None:
    config = quick_pruning(target=target, targets=sorted(targets))
    assert list(config.all_targets) == sorted({*targets, target})
