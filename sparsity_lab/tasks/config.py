"""Which tasks are asked, and with how many pairs."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sparsity_lab.core.config import Config
from sparsity_lab.core.extension import unchanged, with_content
from sparsity_lab.core.paths import UserPath
from sparsity_lab.tasks.outside import KEY, load_tasks
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.tasks.task import Split, Task


class TasksConfig(Config):
    """Which tasks are asked, and how many pairs train the masks, select the circuit's size and test it.

    `names`: all, or some by name. `path`: a Python file with tasks of your own, a JSON Lines file of pairs,
    or a folder of such files; `all` then means these alone, and `names` may mix them with the package's.
    `sha256`, of their content, is filled in. A file of pairs that has fewer than are wanted is asked whole.
    """

    path: UserPath | None = None
    sha256: str | None = None
    names: Literal["all"] | tuple[str, ...] = "all"
    n_train_pairs: int = Field(default=1024, ge=1)
    n_select_pairs: int = Field(default=128, ge=1)
    n_test_pairs: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _with_content(cls, values: Any) -> Any:
        return with_content(values, "tasks")

    @field_validator("names", mode="before")
    @classmethod
    def _one_name(cls, names: Any) -> Any:
        if isinstance(names, str):
            return names if names == "all" else (names,)
        return tuple(names) if isinstance(names, list) else names

    @field_validator("names")
    @classmethod
    def _known(cls, names: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        available = [*TASKS, *_own(info.data.get("path"), info.data.get("sha256"))]
        unknown = [name for name in names if name not in available] if isinstance(names, tuple) else []
        if unknown or not names:
            raise ValueError(f"unknown or no task {unknown}; allowed: all, or some of {', '.join(available)}")
        return names

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.available()
        return self

    def available(self) -> dict[str, Task]:
        """The tasks that can be asked: the package's, and those at `path`."""
        return {**TASKS, **_own(self.path, self.sha256)}

    def asked(self) -> tuple[str, ...]:
        """The names of the tasks that are asked."""
        if self.names != "all":
            return tuple(self.names)
        return tuple(TASKS if self.path is None else _own(self.path, self.sha256))

    def n_pairs(self, split: Split) -> int:
        """How many pairs of a split are asked."""
        return {"train": self.n_train_pairs, "select": self.n_select_pairs, "test": self.n_test_pairs}[split]


def _own(path: UserPath | None, sha256: str | None) -> dict[str, Task]:
    return {} if path is None else load_tasks(unchanged(path, sha256, KEY), TASKS)
