"""The reference model of a run: an existing dense model that it compares with, starts from, or bridges to."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.bridges.bridge import save_bridge
from sparsity_lab.bridges.objective import BridgeObjective, make_bridge
from sparsity_lab.bridges.report import BridgeReport, random_patterns, report_bridge
from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.context import model_hash

log = logging.getLogger(__name__)

BRIDGE = "bridge.json"
BRIDGE_VERSION = 2  # raise when the same config would give another bridge
MIXED_PATHS = 8
DENSE = {"kind": "none"}  # the sparsity of a reference model that is trained here
FOLDER = "reference.folder"


def reference_config(config: RunConfig) -> RunConfig | None:
    """The run that trains or reads the reference model: this one, with that model's shape and training.

    None where there is no reference model, or it is a run's folder.

    Raises:
        UserError: a line for each value that such a run can't have.
    """
    if config.reference is None or config.reference.model is None:
        return None
    trainer = config.reference.trainer or config.trainer.model_copy(update={"start": "scratch"})
    changes = {
        "model": config.reference.model.model_dump(mode="json"),
        "trainer": trainer.model_dump(mode="json"),
        "sparsity": DENSE,
        "snapshots": {},
        "reference": None,
        "bridge": None,
        "steering": None,
    }
    return validate(RunConfig, config.model_dump(mode="json") | changes, "reference")


def reference_inputs(config: RunConfig, reference: Path | None) -> dict[str, Any]:
    """The part of a model that comes from the reference model, for its stage's hash; empty if none does."""
    if reference is None:
        return {}
    inputs: dict[str, Any] = {}
    if config.trainer.start == "reference":
        inputs["start"] = model_hash(reference, FOLDER)
    if config.bridge is not None:
        inputs |= {
            "bridge_version": BRIDGE_VERSION,
            "bridge": config.bridge.model_dump(mode="json"),
            "dense": model_hash(reference, FOLDER),
        }
    return inputs


def start_from(model: Transformer, folder: Path) -> None:
    """Give `model` the tensors of the model in `folder`.

    Raises:
        UserError: they are of another shape.
    """
    tensors = load_model(folder).state_dict()
    own = model.state_dict()
    if wrong := sorted(
        name
        for name in own.keys() | tensors.keys()
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape
    ):
        raise UserError(
            f"trainer.start: reference: the model in {folder} has another shape ({', '.join(wrong[:3])}); "
            "give model.* that model's widths and switches"
        )
    model.load_state_dict(tensors, strict=True)


def bridge_objective(config: RunConfig, model: Transformer, dense_folder: Path) -> BridgeObjective:
    """The objective that trains `model` and a new bridge to the dense model in `dense_folder`."""
    assert config.bridge is not None
    dense = load_model(dense_folder)
    torch.manual_seed(derive_seed(config.seed, "bridge"))  # the bridge depends on no earlier draw
    bridge, seed = make_bridge(dense, model, config.bridge), derive_seed(config.seed, "boundaries")
    return BridgeObjective(dense, bridge, config.bridge, seed)


def finish_bridge(
    trained: BridgeObjective, model: Transformer, windows: Iterable[Tensor], seed: int, folder: Path
) -> None:
    """Write the trained bridge and its report beside the sparse `model`."""
    patterns = random_patterns(trained.bridge.shape.boundaries, MIXED_PATHS, seed)
    report = report_bridge(trained.dense, model, trained.bridge, windows, patterns)
    save_bridge(trained.bridge, folder)
    write_json(folder / BRIDGE, report)
    excess = report.hybrid_excess
    log.info(
        "bridge: hybrid passes lose %.3f nats more than the dense model's %.3f on average, %.3f at most",
        sum(excess) / len(excess), report.dense.loss, max(excess),
    )  # fmt: skip


def measured_bridge(model_folder: Path) -> dict[str, float]:
    """The summary metrics of a bridge's report; sums run over its boundaries."""
    path = model_folder / BRIDGE
    report = validate(BridgeReport, read_json(path), str(path))
    hybrid, mixed, boundaries = report.hybrid_excess, report.mixed_excess, report.boundaries
    return {
        metrics.NMSE_ENCODE.name: sum(b.nmse_encode for b in boundaries),
        metrics.NMSE_DECODE.name: sum(b.nmse_decode for b in boundaries),
        metrics.KL_INTO_SPARSE.name: sum(b.into_sparse.kl for b in boundaries),
        metrics.KL_INTO_DENSE.name: sum(b.into_dense.kl for b in boundaries),
        metrics.HYBRID_EXCESS.name: sum(hybrid) / len(hybrid),
        metrics.WORST_HYBRID_EXCESS.name: max(hybrid),
        metrics.MIXED_EXCESS.name: sum(mixed) / len(mixed),
    }
