"""Upgrade functions for records of older schemas. Each converts a schema to the next.

Schema 2 added the tasks' evidence, and schema 3 the training snapshots. Schema 4 added `kind`, `model` and
`pruning`, which older records hold only in their config. It also renamed the snapshots and the metrics of the
reference model. Schema 5 added the tasks' kinds, caveats, pairs and shortcuts, the loss by source, and the
numbers that a run has replaced. In the config it renamed `sweep`, moved `retries` from the finder to
`pruning`, and added `pruning.closed` and `trainer.final_windows`. Schema 6 added relative targets,
and schema 7 the rules of the checks.
"""

from collections.abc import Callable
from typing import Any

Plain = dict[str, Any]


def _to_schema_4(old: Plain) -> Plain:
    """Convert schema 3 to 4. Values missing from an old config get the behaviour of that time."""
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
    snapshots = [
        {**snapshot, "fraction": snapshot["at"]} for snapshot in old.get("formation", ()) if "at" in snapshot
    ]
    metrics = {name.replace("dense/", "reference/"): value for name, value in _part(old, "metrics").items()}
    kept = {name: value for name, value in old.items() if name != "formation"}
    return kept | {
        "snapshots": [{k: v for k, v in snapshot.items() if k != "at"} for snapshot in snapshots],
        "metrics": metrics,
        "kind": kind,
        "model": shape | {"tokens": None if imported else trainer.get("tokens")},
        "pruning": {
            "finder": pruning.get("method", "masks"),
            "selection": pruning.get("selection", "calibrated"),
            "polish": pruning.get("polish", False),
            "target": pruning.get("target"),
        },
    }


def _to_schema_5(old: Plain) -> Plain:
    """Convert schema 4 to 5. Circuits were open then, and the final loss had the windows of the others."""
    config = dict(_part(old, "config"))
    if "sweep" in config:
        config["sweep_name"] = config.pop("sweep")
    finder = dict(_part(config, "finder"))
    pruning = {"closed": False, "retries": finder.pop("retries", 0)} | _part(config, "pruning")
    reference = _with_final_windows(_part(config, "reference"))
    parts = {"finder": finder, "pruning": pruning, "reference": reference}
    config |= {name: part for name, part in parts.items() if isinstance(config.get(name), dict)}
    return old | {"config": _with_final_windows(config)}


def _to_schema_6(old: Plain) -> Plain:
    """Convert schema 5 to 6. All targets were absolute then."""
    config = _part(old, "config")
    if isinstance(config.get("pruning"), dict):
        config = config | {"pruning": {"relative_targets": []} | config["pruning"]}
    return old | {"config": config}


def _with_final_windows(config: Plain) -> Plain:
    """Return a config, the run's or that of its reference model, whose trainer has `final_windows`."""
    trainer = _part(config, "trainer")
    if "validation_windows" not in trainer:
        return config
    return config | {"trainer": {"final_windows": trainer["validation_windows"]} | trainer}


def _part(values: Plain, name: str) -> Plain:
    part = values.get(name)
    return part if isinstance(part, dict) else {}


UPGRADES: dict[int, Callable[[Plain], Plain]] = {
    1: dict,
    2: dict,
    3: _to_schema_4,
    4: _to_schema_5,
    5: _to_schema_6,
    6: dict,
    7: dict,
}
