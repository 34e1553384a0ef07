"""Config of the logger. It has no field for an API key: W&B finds its own."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from sparsity_lab.core.config import Config


def check_tag(text: str) -> str:
    """Return `text` if W&B takes it as a tag.

    Raises:
        ValueError: it does not.
    """
    if not 1 <= len(text) <= 64 or not text.strip() or not text.isprintable():
        raise ValueError("a tag has 1 to 64 printable characters")
    return text


def check_entity(text: str) -> str:
    """Return `text` if it can be the name of a user or team of W&B.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text):
        raise ValueError("an entity's name has 1 to 128 letters, digits, - and _")
    return text


def check_project(text: str) -> str:
    """Return `text` if it can be the name of a project of W&B.

    Raises:
        ValueError: it cannot.
    """
    if not 1 <= len(text) <= 128 or not text.strip() or not text.isprintable() or set(text) & set("/\\#?%:"):
        raise ValueError("a project's name has 1 to 128 printable characters, none of them / \\ # ? % :")
    return text


class LoggerConfig(Config):
    """`kind` "csv" writes only the run's own files; "wandb" also mirrors them to Weights & Biases.

    `mode` "auto" is online if there is a key and the server answers, else offline (`wandb sync` uploads the
    run later). "online" fails without a key or server. "disabled" is equivalent to `kind` "csv".
    """

    kind: Literal["wandb", "csv"] = "csv"
    project: Annotated[str, AfterValidator(check_project)] = "sparsity-lab"
    entity: Annotated[str, AfterValidator(check_entity)] | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    tags: tuple[Annotated[str, AfterValidator(check_tag)], ...] = ()
