"""Choose W&B's mode without prompting. `tracking` handles an unreachable server."""

import logging
import netrc
import os
from typing import Literal
from urllib.parse import urlparse

import wandb

from sparsity_lab.core.errors import UserError
from sparsity_lab.results.logger import LoggerConfig

log = logging.getLogger(__name__)


def choose_mode(config: LoggerConfig) -> Literal["online", "offline", "disabled"]:
    """Return the mode in which to start W&B. In mode "auto", WANDB_MODE may lower it.

    Raises:
        UserError: `mode` is "online" and there is no API key.
    """
    if config.kind == "csv" or config.mode == "disabled":
        return "disabled"
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
    log.info("W&B: no key (wandb login), so this run is tracked offline")
    return "offline"


def _has_key() -> bool:
    """Return whether W&B finds an API key; it would prompt for a missing one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    url = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
