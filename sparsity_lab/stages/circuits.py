"""Stage `circuits`: a folder for each task of a model: its result, and the circuits found."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, save_circuit
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.search import find_circuits, make_evaluator
from sparsity_lab.config import RunConfig
from sparsity_lab.core.files import write_json
from sparsity_lab.core.run_folder import CIRCUITS, RESULT, circuit_file
from sparsity_lab.core.stage import Stage
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import CurvePoint, TaskResult
from sparsity_lab.stages.context import ModelContext, task_batch
from sparsity_lab.stages.parallel import build_many
from sparsity_lab.tasks.asked import task_hash
from sparsity_lab.tasks.batch import NotAskable

log = logging.getLogger(__name__)

CIRCUITS_VERSION = 5  # raise when the same inputs would give other circuits


def task_circuits(config: RunConfig, context: ModelContext) -> dict[str, Path]:
    """The circuits' folder of each task; the context's model may be a snapshot, which is a model as well."""
    stages = {
        task: Stage(
            room="circuits",
            label=task,
            version=CIRCUITS_VERSION,
            inputs={**context.inputs, **search_inputs(config), "task": task_hash(config.tasks, task)},
            make=partial(_write_circuits, config, context, task),
        )
        for task in config.tasks.asked()
    }
    return {task: built.path for task, built in build_many(stages, context.root, context.load).items()}


def search_inputs(config: RunConfig) -> dict[str, Any]:
    """The parts of the config that decide which circuits are found in a model."""
    return {"finder": config.finder.identity(), "pruning": config.pruning.model_dump(mode="json")}


def _write_circuits(config: RunConfig, context: ModelContext, task: str, folder: Path) -> None:
    started = time.monotonic()
    result, circuits = explain_task(
        config, task, context.tokenizer, context.model, context.means_n, context.name
    )
    for circuit in circuits:
        save_circuit(circuit, folder / circuit_file(circuit.target))
    write_json(folder / RESULT, result)
    main = result.at(config.pruning.target)
    told = (
        f"{main.nodes} nodes, {main.edges} edges, test loss {main.test.selection_loss:.3f}"
        if main
        else result.reason
    )
    log.info("%s: %s: %s (%.0f s)", config.name, task, told, time.monotonic() - started)


def explain_task(
    config: RunConfig, name: str, tokenizer: Tokenizer, model: Transformer, means_n: Tensor, model_name: str
) -> tuple[TaskResult, list[Circuit]]:
    """Ask one task of a model: whether it has learned it, and the circuits that answer it."""

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
    if model.positions is not None and longest > model.config.n_ctx:
        return result("not_askable", f"prompts of {longest} tokens, the context is {model.config.n_ctx}"), []
    evaluator = make_evaluator(model, means_n, data, config.finder, config.pruning)
    select, test = evaluator.unpruned()
    if select.raw_loss > target:
        return result(
            "not_learned", f"unpruned loss {select.raw_loss:.3f} is above {target:g} nats", unpruned=test
        ), []
    empty = evaluator.select_loss(torch.zeros(len(means_n), dtype=torch.bool))
    if empty <= target:
        return result("empty_solves", f"the empty circuit has loss {empty:.3f}", unpruned=test), []
    circuits = find_circuits(evaluator, name, model_name, config.finder, config.pruning)
    curve = tuple(
        CurvePoint(
            target=c.target,
            nodes=len(c.nodes),
            edges=len(c.edges),
            select=c.select,
            test=c.test,
            pruned_edges=c.pruned_edges,
            edges_only=c.edges_only,
        )
        for c in circuits
    )
    if target not in {c.target for c in circuits}:
        return result(
            "no_circuit", f"no set of nodes reaches {target:g} nats", unpruned=test, curve=curve
        ), circuits
    path = f"{CIRCUITS}/{name}/{circuit_file(target)}"
    return result("circuit", "", unpruned=test, curve=curve, circuit=path), circuits
