"""Stage `steering`: the reference model steered by a task's circuit, a folder a task."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sparsity_lab.bridges.bridge import load_bridge
from sparsity_lab.bridges.steering import NotSteerable, steering
from sparsity_lab.bridges.steering_record import SteeringResult, save_steering
from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.standalone import MEANS, load_means
from sparsity_lab.config import RunConfig
from sparsity_lab.core.extension import file_hash
from sparsity_lab.core.run_folder import circuit_file
from sparsity_lab.core.stage import Stage, run_stage
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.stages.context import ModelContext, model_hash, task_batch
from sparsity_lab.stages.reference import FOLDER
from sparsity_lab.tasks.asked import task_hash

log = logging.getLogger(__name__)

STEERING = "steering.json"
STEERING_VERSION = 4  # raise when the same inputs would give another result
BRIDGE_FILES = ("bridge_card.json", "bridge.safetensors")


def steered_tasks(
    config: RunConfig, context: ModelContext, reference: Path, circuits: Mapping[str, Path]
) -> dict[str, Path]:
    """The folder of each task to steer that has a circuit at the main target; the log names the others."""
    assert config.steering is not None
    inputs = context.inputs | {
        "bridge": [file_hash(context.folder / name, "bridge") for name in BRIDGE_FILES],
        "dense": reference.name,
        "dense_hash": model_hash(reference, FOLDER),
        "steering": config.steering.model_dump(mode="json", exclude={"tasks"}),
    }
    target, folders = config.pruning.target, {}
    for task in config.steering.tasks:
        circuit = circuits[task] / circuit_file(target) if task in circuits else None
        if circuit is None or not circuit.exists():
            log.info("steering: %s: no circuit at %g nats to steer by", task, target)
            continue
        stage = Stage(
            room="steering",
            label=task,
            version=STEERING_VERSION,
            inputs=inputs | {"circuit": file_hash(circuit, "circuit"), "task": task_hash(config.tasks, task)},
            make=partial(_write_steering, config, context, reference, circuit, task),
        )
        try:
            folders[task] = run_stage(stage, context.root).path
        except NotSteerable as error:
            log.info("steering: %s", error)
    return folders


def _write_steering(
    config: RunConfig, context: ModelContext, reference: Path, circuit: Path, task: str, folder: Path
) -> None:
    assert config.steering is not None
    result = steering(
        context.model,
        load_model(reference),
        load_bridge(context.folder),
        load_circuit(circuit),
        load_means(circuit.with_name(MEANS), context.model.config),
        task_batch(config, task, "select", context.tokenizer),
        task_batch(config, task, "test", context.tokenizer),
        config.steering,
        reference.name,
    )
    save_steering(result, folder / STEERING)
    _log(result)


def _log(result: SteeringResult) -> None:
    for one in result.steerings:
        log.info(
            "steering: %s by %s: probability %.4f to %.4f, %.1f times none, %.1f times the best random one",
            result.task, one.name, one.probability[0], one.probability[-1], one.times_none, one.times_random,
        )  # fmt: skip
