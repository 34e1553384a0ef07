"""Stage `circuits`: a folder for each task of a model: its result, and the circuits found."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, load_circuit, save_circuit
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.failed_search import out_of_line
from sparsity_lab.circuits.frozen import frozen_values
from sparsity_lab.circuits.search import find_circuits, make_evaluator, unsearched
from sparsity_lab.circuits.standalone import MEANS, references, save_means, save_pairs
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.run_folder import CIRCUITS, RESULT, circuit_file, circuit_files
from sparsity_lab.core.stage import Stage, content_hash_of
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import CurvePoint, TaskResult
from sparsity_lab.stages.context import ModelContext, model_hash, task_batch
from sparsity_lab.stages.parallel import build_many
from sparsity_lab.tasks.asked import asked_pairs, task_hash
from sparsity_lab.tasks.batch import NotAskable
from sparsity_lab.tasks.task import Split

log = logging.getLogger(__name__)

CIRCUITS_VERSION = 7  # raise when the same inputs would give other circuits
SCORED: tuple[Split, ...] = ("select", "test")  # the splits whose pairs are kept beside the circuits


def task_circuits(config: RunConfig, context: ModelContext) -> dict[str, Path]:
    """The circuits' folder of each task; the context's model may be a snapshot, which is a model as well."""

    def build(earlier: Mapping[str, Path | None]) -> dict[str, Path]:
        stages = {task: _stage(config, context, task, folder) for task, folder in earlier.items()}
        return {task: built.path for task, built in build_many(stages, context.root, context.load).items()}

    folders = build(dict.fromkeys(config.tasks.asked()))
    suspects = _suspects(config, folders) if config.pruning.retries else ()
    return folders | build({task: folders[task] for task in suspects})


def _stage(config: RunConfig, context: ModelContext, task: str, earlier: Path | None) -> Stage:
    """The stage of one task. `earlier` is the folder of a search that may have failed; the stage goes on."""
    inputs = {**context.inputs, **search_inputs(config), "task": task_hash(config.tasks, task)}
    if earlier is not None:
        inputs["earlier"] = content_hash_of(earlier)
    make = partial(_write_circuits, config, context, task, earlier)
    return Stage("circuits", task, CIRCUITS_VERSION, inputs, make)


def _suspects(config: RunConfig, folders: Mapping[str, Path]) -> list[str]:
    """The tasks whose circuits at the main target are out of line with the model's others."""
    results = {task: _read(folder) for task, folder in folders.items()}
    points = {task: result.at(config.pruning.target) for task, result in results.items()}
    suspects = out_of_line({task: point.nodes for task, point in points.items() if point is not None})
    for task in suspects:
        log.info("%s: %s: far more nodes than other tasks, searched again", config.name, task)
    return suspects


def _read(folder: Path) -> TaskResult:
    return validate(TaskResult, read_json(folder / RESULT), str(folder / RESULT))


def search_inputs(config: RunConfig) -> dict[str, Any]:
    """The parts of the config that decide which circuits are found in a model."""
    return {"finder": config.finder.identity(), "pruning": config.pruning.model_dump(mode="json")}


def _write_circuits(
    config: RunConfig, context: ModelContext, task: str, earlier: Path | None, folder: Path
) -> None:
    started = time.monotonic()
    before = [load_circuit(path) for path in circuit_files(earlier)] if earlier is not None else []
    result, circuits = explain_task(
        config, task, context.tokenizer, context.model, context.means_n, context.name, before
    )
    if circuits:
        identity = _write_beside(config, context, task, folder)
        for circuit in circuits:
            path = folder / circuit_file(circuit.asked, circuit.target_kind)
            save_circuit(circuit.model_copy(update=identity), path)
    write_json(folder / RESULT, result)
    main = result.at(config.pruning.target)
    told = (
        f"{main.nodes} nodes, {main.edges} edges{_left(main)}, test loss {main.test.selection_loss:.3f}"
        if main
        else result.reason
    )
    if result.retries:
        told += f"; searched {result.retries + 1} times ({result.retried_because})"
    log.info("%s: %s: %s (%.0f s)", config.name, task, told, time.monotonic() - started)


def _left(point: CurvePoint) -> str:
    return "" if point.pruned_edges is None else f" ({point.pruned_edges} after edge pruning)"


def _write_beside(config: RunConfig, context: ModelContext, task: str, folder: Path) -> dict[str, Any]:
    """Write the files beside a task's circuits; return the circuits' fields that name them and the model."""
    pairs = {split: asked_pairs(config.tasks, task, split) for split in SCORED}
    batches = {split: task_batch(config, task, split, context.tokenizer) for split in SCORED}
    train = task_batch(config, task, "train", context.tokenizer)
    if config.pruning.ablation != "other_prompt":  # whose values are others on each prompt
        frozen_n = frozen_values(config.pruning.ablation, context.model, context.means_n, train)
        save_means(frozen_n, context.model.config, folder / MEANS)
    save_pairs(pairs, batches, folder)
    hashes = {"model_hash": model_hash(context.folder), "task_hash": task_hash(config.tasks, task)}
    return references(folder) | hashes


def explain_task(
    config: RunConfig,
    name: str,
    tokenizer: Tokenizer,
    model: Transformer,
    means_n: Tensor,
    model_name: str,
    earlier: Sequence[Circuit] = (),
) -> tuple[TaskResult, list[Circuit]]:
    """Ask one task of a model: whether it has learned it, and the circuits that answer it.

    `earlier` are the circuits of a search that may have failed (`find_circuits`).
    """

    def result(status: Any, reason: str, **more: Any) -> TaskResult:
        return TaskResult(
            **{
                "task": name,
                "status": status,
                "reason": reason,
                "unpruned": None,
                "curve": (),
                "circuit": None,
            }
            | more
        )

    target = config.pruning.target
    try:
        data = TaskData(
            train=task_batch(config, name, "train", tokenizer),
            select=task_batch(config, name, "select", tokenizer),
            test=task_batch(config, name, "test", tokenizer),
        )
    except NotAskable as error:
        return result("not_askable", error.reason), []
    longest = max(batch.tokens_bt.shape[1] for batch in (data.train, data.select, data.test))
    if model.config.limits_length and longest > model.config.n_ctx:
        return result("not_askable", f"prompts of {longest} tokens, the context is {model.config.n_ctx}"), []
    evaluator = make_evaluator(model, means_n, data, config.finder, config.pruning)
    select, test = evaluator.unpruned()
    if why := unsearched(evaluator, select, target):
        return result(why.status, why.reason, unpruned=test), []
    circuits, retries, because = find_circuits(
        evaluator, name, model_name, config.finder, config.pruning, earlier
    )
    tries: dict[str, Any] = {"retries": retries, "retried_because": because}
    curve = tuple(
        CurvePoint(
            target=c.target,
            target_kind=c.target_kind,
            excess=c.excess,
            nodes=len(c.nodes),
            edges=len(c.edges),
            select=c.select,
            test=c.test,
            pruned_edges=c.pruned_edges,
            edges_only=c.edges_only,
        )
        for c in circuits
    )
    if all((c.target, c.target_kind) != (target, "absolute") for c in circuits):
        return result(
            "no_circuit", f"no set of nodes reaches {target:g} nats", unpruned=test, curve=curve, **tries
        ), circuits
    path = f"{CIRCUITS}/{name}/{circuit_file(target)}"
    return result("circuit", "", unpruned=test, curve=curve, circuit=path, **tries), circuits
