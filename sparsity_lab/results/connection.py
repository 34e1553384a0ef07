"""Choose W&B's mode without prompting. `tracking` handles an unreachable server."""

import netrc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlparse

import wandb

from sparsity_lab.core.environment import environment_variables
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.results.logger import LoggerConfig, check_entity, check_tag

Mode = Literal["online", "offline", "disabled"]


def choose_mode(config: LoggerConfig) -> Mode:
    """Return the mode in which to start W&B. In mode "auto", WANDB_MODE may lower it.

    Raises:
        UserError: `mode` is "online" and there is no API key, or a variable has a value that W&B refuses.
    """
    if config.kind == "csv" or config.mode == "disabled":
        return "disabled"
    with replaced_variables_hidden(config):
        _check_variables()
        return _available_mode(config)


@contextmanager
def replaced_variables_hidden(config: LoggerConfig) -> Iterator[None]:
    """Hide the variables whose place a value of the config takes. W&B checks them even so."""
    given = {"WANDB_ENTITY": config.entity, "WANDB_TAGS": config.tags}
    with environment_variables(dict.fromkeys(variable for variable, value in given.items() if value)):
        yield


def _available_mode(config: LoggerConfig) -> Mode:
    asked = os.environ.get("WANDB_MODE", "auto") if config.mode == "auto" else config.mode
    if asked == "disabled":
        return "disabled"
    if asked in ("offline", "dryrun"):
        return "offline"
    if _has_key():
        return "online"
    if config.mode == "online":
        raise UserError(
            "logger.mode: 'online': no key (wandb login); allowed without: auto, offline, disabled"
        )
    return "offline"


def no_key(config: LoggerConfig) -> bool:
    """Return whether a key is all that is lacking for an online run."""
    wanted = config.mode == "auto" and os.environ.get("WANDB_MODE") not in ("offline", "dryrun", "disabled")
    return wanted and not _has_key()


def _check_variables() -> None:
    """Check the variables that W&B reads.

    Raises:
        UserError: W&B would refuse one, or take it and never find the run's place.
    """
    checks: dict[str, Callable[[str], object]] = {"WANDB_ENTITY": check_entity, "WANDB_TAGS": _tags}
    for variable, check in checks.items():
        if value := os.environ.get(variable):
            try:
                check(value)
            except ValueError as error:
                raise UserError(f"{variable}: {value!r}: {error}") from None
    for variable, value in os.environ.items():
        if variable.startswith("WANDB_"):
            with foreign(f"{variable}: W&B refuses it"):
                wandb.Settings().update_from_env_vars({variable: value})


def _tags(text: str) -> None:
    for one in text.split(","):
        check_tag(one)


def _has_key() -> bool:
    """Return whether W&B finds an API key; it would prompt for a missing one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    url = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
