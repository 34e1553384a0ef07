"""Content hashes and derived seeds: what names a stage's folder, and where randomness comes from."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def content_hash(*parts: Any) -> str:
    """Twelve hex digits that depend on the JSON form of `parts` alone."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one use of randomness, independent between different `names`."""
    text = json.dumps([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
