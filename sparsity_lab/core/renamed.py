"""Renamed options. An old name is refused with a message that gives the new one."""

from collections.abc import Iterable, Mapping
from typing import Any

# Old → new. An entry is a `group=option`, a `key=value`, or a key, which also covers the keys below it.
RENAMED = {
    "sparsity=dense": "sparsity=none",
    "sparsity=sparse": "sparsity=magnitude",
    "sparsity.kind=dense": "sparsity.kind=none",
    "sparsity.kind=sparse": "sparsity.kind=magnitude",
    "validation": "evidence",
    "circuits.at": "snapshots.fractions",
    "circuits": "snapshots",
    "dense": "reference",
    "trainer.start=dense": "trainer.start=reference",
    "pruning.method=masks": "finder=masks",
    "pruning.method=gradient": "finder=gradient",
    "pruning.method=integrated": "finder=integrated",
    "pruning.masks": "finder",
    "finder.retries": "pruning.retries",
}

# keys whose name on the command line means something else today: `sweep` is a group
RENAMED_IN_FILES = {"sweep": "sweep_name"}


def renamed_in_overrides(overrides: Iterable[str]) -> list[str]:
    """Return a line, `a=x is now a=y`, for each command-line override that uses an old name."""
    lines: dict[str, None] = {}
    for override in overrides:
        key, _, values = override.lstrip("+~").partition("=")
        for value in values.split(","):
            lines |= dict.fromkeys(_lines(key, value))
    return list(lines)


def renamed_in_config(values: Mapping[str, Any], within: str = "") -> list[str]:
    """Return a line, `a.b=x is now a.b=y`, for each key of a composed config that uses an old name."""
    lines: dict[str, None] = {}
    for name, value in values.items():
        key = f"{within}{name}"
        inner = renamed_in_config(value, f"{key}.") if isinstance(value, Mapping) else []
        if new := RENAMED_IN_FILES.get(key):
            inner = [f"{key} is now {new}"]
        lines |= dict.fromkeys(inner or _lines(key, str(value)))
    return list(lines)


def _lines(key: str, value: str) -> list[str]:
    if new := RENAMED.get(f"{key}={value}"):
        return [f"{key}={value} is now {new}"]
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if new := RENAMED.get(".".join(parts[:length])):
            return [f"{key} is now {'.'.join([new, *parts[length:]])}"]
    return []
