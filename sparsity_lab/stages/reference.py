"""What a run does with an existing dense model: start from it, bridge to it, agree with it, steer it."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.bridges.bridge import load_bridge, save_bridge
from sparsity_lab.bridges.objective import BridgeObjective, make_bridge
from sparsity_lab.bridges.report import BridgeReport, random_patterns, report_agreement, report_bridge
from sparsity_lab.bridges.steering import NotSteerable, steering
from sparsity_lab.bridges.steering_record import SteeringResult, save_steering
from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.snapshots import CircuitsConfig
from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.hashing import content_hash, derive_seed
from sparsity_lab.core.stage import build
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.context import TOKENIZER, task_batch, text_windows, validation_windows
from sparsity_lab.training.sparsity import none

log = logging.getLogger(__name__)

BRIDGE, AGREEMENT, STEERING = "bridge.json", "agreement.json", "steering.json"
BRIDGE_VERSION = 2  # raise when the same config would give another bridge
STEERING_VERSION = 3
MIXED_PATHS = 8


def fingerprint(folder: Path) -> str:
    """What tells one model's tensors from another's.

    Raises:
        UserError: there is no model in the folder.
    """
    try:
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise UserError(f"dense.folder: {folder}: no model there ({error.strerror})") from None


def dense_config(config: RunConfig) -> RunConfig:
    """The run that trains or reads the existing dense model: this one, with its shape and its training."""
    assert config.dense is not None
    changes: dict[str, Any] = {
        "model": config.dense.model,
        "trainer": config.dense.trainer or config.trainer.model_copy(update={"start": "scratch"}),
        "sparsity": none.Config(),
        "circuits": CircuitsConfig(),
    }
    return config.model_copy(update=changes | {"dense": None, "bridge": None, "steering": None})


def about_dense(config: RunConfig, dense: Path | None) -> dict[str, Any]:
    """What a model owes the existing dense one, for its stage's hash; nothing where it owes it nothing."""
    if dense is None:
        return {}
    about: dict[str, Any] = {}
    if config.trainer.start == "dense":
        about["start"] = fingerprint(dense)
    if config.bridge is not None:
        about |= {
            "stage": "bridge",
            "bridge_version": BRIDGE_VERSION,
            "bridge": config.bridge.model_dump(mode="json"),
            "dense": fingerprint(dense),
        }
    return about


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
            f"trainer.start: dense: the model in {folder} has another shape ({', '.join(wrong[:3])}); "
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


def agreement(config: RunConfig, tokens: Path, dense: Path, model_folder: Path, root: Path) -> Path:
    """Stage `agreement`: how the model's predictions compare with those of the existing dense one."""
    about = {
        "stage": "agreement",
        "tokens": tokens.name,
        "dense": fingerprint(dense),
        "model": model_folder.name,
        "windows": config.trainer.validation_windows,
    }

    def make(folder: Path) -> None:
        windows = validation_windows(config, tokens)
        pair = report_agreement(load_model(dense), load_model(model_folder), windows)
        names = (metrics.DENSE_LOSS.name, metrics.DENSE_KL.name)
        write_json(folder / AGREEMENT, dict(zip(names, pair, strict=True)))

    return build(root / "agreements" / f"{model_folder.name}-{content_hash(about)}", about, make)


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


def steered_tasks(
    config: RunConfig, tokens: Path, dense: Path, model_folder: Path, circuits: dict[str, Path], root: Path
) -> dict[str, Path]:
    """Stage `steering`, a folder a task that has a circuit at the main target; the others are told."""
    assert config.steering is not None
    tokenizer, folders = load_tokenizer(tokens / TOKENIZER), {}
    means_n: list[Tensor] = []
    for task in config.steering.tasks:
        circuit = circuits[task] / f"circuit-{config.pruning.target:g}.json" if task in circuits else None
        if circuit is None or not circuit.exists():
            log.info("steering: %s: no circuit at %g nats to steer by", task, config.pruning.target)
            continue
        about = {
            "stage": "steering",
            "version": STEERING_VERSION,
            "circuits": circuits[task].name,
            "dense": fingerprint(dense),
            "steering": config.steering.model_dump(mode="json", exclude={"tasks"}),
        }

        def make(folder: Path, task: str = task, circuit: Path = circuit) -> None:
            sparse = load_model(model_folder)
            if not means_n:
                means_n.append(mean_activations(sparse, text_windows(config, tokens)))
            assert config.steering is not None
            result = steering(
                sparse,
                load_model(dense),
                load_bridge(model_folder),
                load_circuit(circuit),
                means_n[0],
                task_batch(config, task, "select", tokenizer),
                task_batch(config, task, "test", tokenizer),
                config.steering,
                dense.name,
            )
            save_steering(result, folder / STEERING)
            _tell(result)

        try:
            folders[task] = build(root / "steering" / f"{task}-{content_hash(about)}", about, make)
        except NotSteerable as error:
            log.info("steering: %s", error)
    return folders


def _tell(result: SteeringResult) -> None:
    for one in result.steerings:
        log.info(
            "steering: %s by %s: probability %.4f to %.4f, %.1f times none, %.1f times the best random one",
            result.task, one.name, one.probability[0], one.probability[-1], one.times_none, one.times_random,
        )  # fmt: skip
