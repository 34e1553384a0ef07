"""How much is asked of each circuit."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from sparsity_lab.core.config import GrowingConfig


class EvidenceConfig(GrowingConfig):
    """How much is asked of each circuit, and of which.

    `tasks`: those whose circuits are checked; None is all that have a circuit at the main target.
    `pairs`: test pairs that the checks use; `draws`: random subsets restored, for each share of the nodes;
    `binarisation_steps`: of learning the two values of each node; `text_windows`: of pretraining text;
    `controls`: whether the same pruning is tried where there is nothing to find, which takes the longest.
    """

    later_fields: ClassVar = ("tasks",)

    enabled: bool = True
    tasks: tuple[str, ...] | None = Field(default=None, strict=False)  # a list from YAML too
    pairs: PositiveInt = 64
    draws: PositiveInt = 4
    binarisation_steps: NonNegativeInt = 60
    text_windows: PositiveInt = 32
    controls: bool = True
    seed: NonNegativeInt = 0

    @field_validator("tasks")
    @classmethod
    def _some(cls, tasks: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if tasks is not None and (not tasks or len(set(tasks)) < len(tasks)):
            raise ValueError("must be null or names of tasks, each once; for no evidence: evidence=none")
        return tasks
