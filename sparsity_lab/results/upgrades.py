"""How records of older schemas are read: for each, the function that turns it into the next.

Schema 2 added the tasks' evidence, schema 3 the snapshots of training: older records have neither. Schema 4
added `kind`, `model` and `pruning`, which older records say only in their config.
"""

from collections.abc import Callable
from typing import Any

Plain = dict[str, Any]


def _say_kind_model_and_pruning(old: Plain) -> Plain:
    """Schema 3 to 4. Values that the config of an old record lacks are those that held before it had them."""
    config = _part(old, "config")
    model, trainer, sparsity, pruning = (
        _part(config, name) for name in ("model", "trainer", "sparsity", "pruning")
    )
    imported = model.get("kind", "transformer") != "transformer"
    kind: Any
    if imported:
        kind = "imported"
    elif config.get("bridge"):
        kind = "bridged"
    elif trainer.get("start") == "dense":
        kind = "sparsified"
    else:
        kind = sparsity.get("kind")
    shape = {name: model.get(name) for name in ("d_model", "n_layer", "d_head")}
    return old | {
        "kind": kind,
        "model": shape | {"tokens": None if imported else trainer.get("tokens")},
        "pruning": {
            "finder": pruning.get("method", "masks"),
            "selection": pruning.get("selection", "calibrated"),
            "polish": pruning.get("polish", False),
            "target": pruning.get("target"),
        },
    }


def _part(values: Plain, name: str) -> Plain:
    part = values.get(name)
    return part if isinstance(part, dict) else {}


UPGRADES: dict[int, Callable[[Plain], Plain]] = {1: dict, 2: dict, 3: _say_kind_model_and_pruning}
