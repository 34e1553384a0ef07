"""Decides, without a prompt and within seconds, whether W&B is online for a run."""

import logging
import netrc
import os
import urllib.error
import urllib.request
from typing import Literal
from urllib.parse import urlparse

import wandb

from sparsity_lab.core.errors import UserError
from sparsity_lab.results.logger import LoggerConfig

log = logging.getLogger(__name__)

PROBE_TIMEOUT = 5.0  # seconds


def choose_mode(config: LoggerConfig) -> Literal["online", "offline", "disabled"]:
    """What a run with `config` shall do. In mode "auto", WANDB_MODE has its say when it asks for less.

    Raises:
        UserError: `mode` is "online" and there is no key or no connection.
    """
    if config.kind == "csv" or config.mode == "disabled":
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "auto") if config.mode == "auto" else config.mode
    if asked == "disabled":
        return "disabled"
    if asked in ("offline", "dryrun"):
        return "offline"
    url = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    lacking = (
        "no key (wandb login)" if not _has_key(url) else "" if _answers(url) else f"no connection to {url}"
    )
    if not lacking:
        return "online"
    if config.mode == "online":
        raise UserError(f"logger.mode: 'online': {lacking}; allowed without: auto, offline, disabled")
    log.info("W&B: %s, so this run is tracked offline", lacking)
    return "offline"


def _has_key(url: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=PROBE_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True  # refused, hence reached
    except (OSError, ValueError):
        return False
    return True
