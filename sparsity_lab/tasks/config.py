"""Which tasks are asked, and with how many pairs."""

from typing import Literal

from pydantic import Field, field_validator

from sparsity_lab.core.config import Config
from sparsity_lab.tasks.python import TASKS


class TasksConfig(Config):
    """Which tasks are asked, and how many pairs train the masks, select the circuit's size and test it."""

    names: Literal["all"] | tuple[str, ...] = "all"
    n_train_pairs: int = Field(default=2048, ge=1)
    n_select_pairs: int = Field(default=256, ge=1)
    n_test_pairs: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("names")
    @classmethod
    def _known(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        unknown = [name for name in names if name not in TASKS] if isinstance(names, tuple) else []
        if unknown or not names:
            raise ValueError(f"unknown or no task {unknown}; allowed: all, or some of {', '.join(TASKS)}")
        return names
