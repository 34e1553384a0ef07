"""Read circuits of the released models (`viz_data.pt` of openai/circuit_sparsity) as `Circuit` records.

`circuit_data` maps a location (`0.attn.act_in`) to the kept channels. The edges are listed from the model's
weights. `importances` contains the losses, summed over the two prompts of a pair, and the prompts, padded
with token 0. Kept channels of `final_resid` are not nodes in this project; the provenance records their
number.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sparsity_lab.circuits.circuit import Calibration, Circuit, Node, Scores
from sparsity_lab.circuits.edges import list_edges
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.errors import UserError
from sparsity_lab.importers.released import load_torch
from sparsity_lab.model.sites import RELEASED_NAMES
from sparsity_lab.model.transformer import Transformer

FINAL = "final_resid"


class ReleasedCircuit(NamedTuple):
    """A circuit and the prompts it was found on, as token ids. Prompts are sorted by class."""

    circuit: Circuit
    prompts: tuple[tuple[int, ...], ...]


def read_released_circuit(path: Path, model: Transformer, model_name: str, task: str) -> ReleasedCircuit:
    """Read the circuit in a `viz_data.pt`; `model` is the released model that it belongs to.

    The file has a single loss, which becomes both the raw and the selection loss. If the file names no
    target, the target is the pruned loss. The file has no accuracy, so the accuracy is null.

    Raises:
        UserError: the file cannot be read, lacks a part, or names a node that the model does not have.
    """
    saved = load_torch(path)
    try:
        kept, importances = dict(saved["circuit_data"]), saved["importances"]
        unpruned, pruned = (float(importances[key]) / 2 for key in ("loss", "interv_loss"))
        samples = importances["task_samples"]
        prompts = _prompts(samples[0] if isinstance(samples, tuple | list) else samples)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a circuit of the release ({type(error).__name__}: {error})") from None
    final = len(_channels(kept.pop(FINAL, ())))
    layout = NodeLayout(model.config)
    nodes = [
        Node(layer=layer, site=site, channel=channel)
        for location, channels in kept.items()
        for layer, site in [_place(location, path)]
        for channel in _channels(channels)
    ]
    try:
        kept_n = layout.mask(nodes)
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}: no node of this model") from None
    scores = Scores(raw_loss=pruned, selection_loss=pruned, accuracy=None)
    circuit = Circuit(
        task=task,
        model=model_name,
        target=float((saved.get("prune_config") or {}).get("target_loss") or pruned),
        nodes=layout.nodes(kept_n),
        edges=list_edges(model, kept_n),
        calibration=Calibration(scale=1.0, shift=0.0),
        select=scores,
        test=scores,
        provenance={"method": "released", "file": path.name, "unpruned_loss": unpruned, FINAL: final},
    )
    return ReleasedCircuit(circuit, prompts)


def _place(location: str, path: Path) -> tuple[int, str]:
    layer, _, hook = location.partition(".")
    if hook not in RELEASED_NAMES or not layer.isdigit():
        allowed = ", ".join(f"LAYER.{name}" for name in RELEASED_NAMES)
        raise UserError(f"{path}: circuit_data: {location!r}: allowed: {FINAL}, {allowed}")
    return int(layer), RELEASED_NAMES[hook].value


def _channels(indices: Any) -> list[int]:
    listed: Iterable[Any] = indices.flatten().tolist() if isinstance(indices, torch.Tensor) else indices
    return [int(index) for index in listed]


def _prompts(tokens: Any) -> tuple[tuple[int, ...], ...]:
    rows = [_channels(row) for row in tokens]
    lengths = [max((i + 1 for i, token in enumerate(row) if token), default=0) for row in rows]
    return tuple(tuple(row[:length]) for row, length in zip(rows, lengths, strict=True))
