"""Which tasks are asked, and with how many pairs."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sparsity_lab.core.config import Config
from sparsity_lab.tasks.outside import load_tasks
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.tasks.task import Split, Task


class TasksConfig(Config):
    """Which tasks are asked, and how many pairs train the masks, select the circuit's size and test it.

    `names`: all, or some by name. `path`: a Python file with tasks of your own, or a folder of such files;
    `all` then means these alone, and `names` may mix them with the package's.
    """

    names: Literal["all"] | tuple[str, ...] = "all"
    path: str | None = None
    n_train_pairs: int = Field(default=1024, ge=1)
    n_select_pairs: int = Field(default=128, ge=1)
    n_test_pairs: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("names", mode="before")
    @classmethod
    def _one_name(cls, names: Any) -> Any:
        if isinstance(names, str):
            return names if names == "all" else (names,)
        return tuple(names) if isinstance(names, list) else names

    @model_validator(mode="after")
    def _known(self) -> "TasksConfig":
        available = self.available()
        unknown = [name for name in self.asked() if name not in available]
        if unknown or not self.asked():
            raise ValueError(
                f"names: unknown or no task {unknown}; allowed: all, or some of {', '.join(available)}"
            )
        return self

    def available(self) -> dict[str, Task]:
        """The tasks that can be asked: the package's, and those at `path`."""
        return {**TASKS, **self._own()}

    def asked(self) -> tuple[str, ...]:
        """The names of the tasks that are asked."""
        if self.names != "all":
            return tuple(self.names)
        return tuple(TASKS if self.path is None else self._own())

    def n_pairs(self, split: Split) -> int:
        """How many pairs of a split are asked."""
        return {"train": self.n_train_pairs, "select": self.n_select_pairs, "test": self.n_test_pairs}[split]

    def _own(self) -> dict[str, Task]:
        return {} if self.path is None else load_tasks(Path(self.path), TASKS)
