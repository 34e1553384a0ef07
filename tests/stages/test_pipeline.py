"""The order of a run's parts, without the parts."""

from collections.abc import Callable
from typing import Any

import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.stages import pipeline
from tests.test_cost import config_of

CHECKS = ["reference_config", "check_inputs", "choose_mode"]


@pytest.mark.parametrize("name", CHECKS)
def test_every_rank_refuses_what_the_first_refuses_before_any_work(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Another rank that went on would wait for the first for ever."""

    def refuse(*arguments: Any) -> None:
        raise UserError(f"{name}: no")

    def work(*arguments: Any) -> None:
        raise AssertionError("work has begun")

    checks: dict[str, Callable[..., None]] = {check: lambda *arguments: None for check in CHECKS}
    for check, stand_in in (checks | {name: refuse, "prepare": work}).items():
        monkeypatch.setattr(pipeline, check, stand_in)
    monkeypatch.setattr(pipeline, "prepare_processor", lambda *arguments: None)
    with pytest.raises(UserError, match=f"^{name}: no$"):
        pipeline.help_run(config_of())
