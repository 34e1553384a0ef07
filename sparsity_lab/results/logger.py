"""Where a run's measurements are mirrored. There is no field for a key: W&B finds its own."""

from typing import Literal

from pydantic import field_validator

from sparsity_lab.core.config import Config


class LoggerConfig(Config):
    """`kind` "csv" keeps the run's own files alone; "wandb" mirrors them in Weights & Biases.

    `mode` "auto" is online when there is a key and the server answers, else offline (`wandb sync` sends it
    later); "online" makes the lack of either an error; "disabled" is as good as csv.
    """

    kind: Literal["wandb", "csv"] = "csv"
    project: str = "sparsity-lab"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    tags: tuple[str, ...] = ()

    @field_validator("project")
    @classmethod
    def _project(cls, project: str) -> str:
        if not project or len(project) > 128 or set(project) & set("/\\#?%:"):
            raise ValueError("a project's name has 1 to 128 characters, none of them / \\ # ? % :")
        return project
