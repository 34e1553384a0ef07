"""Content hashes, which name stage folders, and derived seeds, the source of all randomness."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def content_hash(*parts: Any) -> str:
    """Hash the JSON form of `parts` to twelve hex digits."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed for one use of randomness; different `names` give independent seeds."""
    text = json.dumps([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
