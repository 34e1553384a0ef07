"""Config of the logger. It has no field for an API key: W&B finds its own."""

from typing import Literal

from pydantic import field_validator

from sparsity_lab.core.config import Config


class LoggerConfig(Config):
    """`kind` "csv" writes only the run's own files; "wandb" also mirrors them to Weights & Biases.

    `mode` "auto" is online if there is a key and the server answers, else offline (`wandb sync` uploads the
    run later). "online" fails without a key or server. "disabled" is equivalent to `kind` "csv".
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
