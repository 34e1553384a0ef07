"""A run, stage by stage: tokens → model → circuits → record. The only module that knows every room.

A stage is a function of its config and inputs; its output is a folder named by the hash of both, made once
and shared by all runs below the same root. The run's own folder holds the record, the config, and links to
its stages.
"""

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sparsity_lab import metrics
from sparsity_lab.base import (
    build,
    content_hash,
    derive_seed,
    read_json,
    validate,
    write_json,
    write_text,
)
from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.circuits.circuit import Circuit, save_circuit
from sparsity_lab.circuits.pruning import Pruner, TaskData, find_circuits
from sparsity_lab.circuits.task import NotAskable, Split, TaskBatch, encode_pairs, make_pairs
from sparsity_lab.circuits.tasks import TASKS
from sparsity_lab.config import RunConfig
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.data.packed import bigram_counts
from sparsity_lab.data.prepare import prepare
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.model.checkpoints import count_weights, load_model, save_model
from sparsity_lab.model.machine import prepare_processor
from sparsity_lab.model.transformer import Transformer, bigram_log_probabilities
from sparsity_lab.results.metrics_log import METRICS_FILE
from sparsity_lab.results.record import (
    CurvePoint,
    RunRecord,
    TaskResult,
    environment,
    geometric_mean,
    write_record,
)
from sparsity_lab.results.run_picture import draw_run
from sparsity_lab.results.tracking import track
from sparsity_lab.training.fit import fit, precision
from sparsity_lab.training.modules import DenseModule, SparseModule

log = logging.getLogger(__name__)

MODEL_VERSION = 1  # raise when the same config would give another model
CIRCUITS_VERSION = 1  # raise when the same model and config would give other circuits
TOKENIZER, VALIDATION, RESULT = "tokenizer.json", "validation.json", "result.json"


def run(config: RunConfig, overrides: list[str]) -> RunRecord:
    """Do all that `config` asks for, reusing finished stages; writes and returns the record."""
    prepare_processor(config.threads)
    started, root = time.monotonic(), Path(config.root).absolute()
    tokens = prepare(config.corpus, config.tokenizer, root)
    prepared = time.monotonic()
    folder = root / (config.sweep or "single") / f"{config.name}-{content_hash(config)[:6]}"
    with track(
        config.logger, folder, name=folder.name, group=config.sweep, settings=config.model_dump(mode="json")
    ) as tracker:
        write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        model_folder, is_new = trained_model(config, tokens, root, tracker.loggers)
        trained = time.monotonic()
        link(folder / "tokens", tokens)
        link(folder / "model", model_folder)
        write_text(folder / METRICS_FILE, (model_folder / METRICS_FILE).read_text())
        if not is_new:
            tracker.replay(folder / METRICS_FILE)
        circuit_folders = task_circuits(config, tokens, model_folder, root)
        for task, circuit_folder in circuit_folders.items():
            link(folder / "circuits" / task, circuit_folder)
        record = make_record(config, overrides, folder.name, tokens, model_folder, circuit_folders)
        write_record(record, folder)
        finished = time.monotonic()
        write_json(
            folder / "timings.json",
            {"prepare": prepared - started, "train": trained - prepared, "circuits": finished - trained},
        )
        picture = draw_run(record, folder / METRICS_FILE, folder / "run.png")
        circuits = [path for f in circuit_folders.values() for path in f.glob("circuit-*.json")]
        tracker.log_record(record, model=model_folder, circuits=circuits, plots=[picture])
    log.info("%s: done in %.0f s, record in %s", folder.name, finished - started, folder)
    return record


def trained_model(
    config: RunConfig, tokens: Path, root: Path, loggers: Callable[[Path], list[Any]]
) -> tuple[Path, bool]:
    """Stage `model`: the trained model's folder, and whether it was trained just now.

    An interrupted training goes on from its last checkpoint. `loggers` makes those of a folder.
    """
    about = {
        "stage": "model",
        "version": MODEL_VERSION,
        "tokens": tokens.name,
        "model": config.model.model_dump(mode="json"),
        "sparsity": config.sparsity.model_dump(mode="json"),
        "trainer": config.trainer.model_dump(mode="json", exclude={"log_every", "checkpoint_every"}),
        "precision": precision(config.trainer.precision),
        "seed": config.seed,
    }

    def make(folder: Path) -> None:
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        n_steps = config.trainer.steps(config.model.n_ctx)
        data = TokenDataModule(
            tokens,
            config.model.n_ctx,
            config.trainer.batch_size,
            n_steps,
            derive_seed(config.seed, "batches"),
            config.trainer.validation_windows,
        )
        vocab_size = load_tokenizer(tokens / TOKENIZER).vocab_size
        bigram_vv = None
        if config.model.bigram != "none":
            counts_vv = bigram_counts(data.train.tokens, vocab_size)
            bigram_vv = bigram_log_probabilities(torch.from_numpy(counts_vv))
        model = Transformer(config.model, vocab_size, bigram_vv)
        module: DenseModule
        if config.sparsity.kind == "sparse":
            module = SparseModule(model, config.trainer, n_steps, config.sparsity)
        else:
            module = DenseModule(model, config.trainer, n_steps)
        final = fit(module, data, folder, loggers(folder), config.name)
        save_model(model, folder)
        write_json(folder / VALIDATION, final)

    folder = root / "models" / f"{config.name}-{content_hash(about)}"
    is_new = not folder.exists()
    return build(folder, about, make, resume=True), is_new


def task_circuits(config: RunConfig, tokens: Path, model_folder: Path, root: Path) -> dict[str, Path]:
    """Stage `circuits`, a folder a task: its result and the circuits found."""
    names = tuple(TASKS) if config.tasks.names == "all" else config.tasks.names
    tokenizer = load_tokenizer(tokens / TOKENIZER)
    model = load_model(model_folder)
    data = TokenDataModule(
        tokens, config.model.n_ctx, config.trainer.batch_size, 1, 0, config.trainer.validation_windows
    )
    means_n = mean_activations(model, [windows[:, :-1] for windows in data.val_dataloader()])
    folders = {}
    for name in names:
        about = {
            "stage": "circuits",
            "version": CIRCUITS_VERSION,
            "model": model_folder.name,
            "task": name,
            "tasks": config.tasks.model_dump(mode="json", exclude={"names"}),
            "pruning": config.pruning.model_dump(mode="json"),
        }
        make = partial(_write_circuits, config, name, tokenizer, model, means_n, model_folder.name)
        folders[name] = build(root / "circuits" / f"{name}-{content_hash(about)}", about, make)
    return folders


def _write_circuits(
    config: RunConfig,
    name: str,
    tokenizer: Tokenizer,
    model: Transformer,
    means_n: Tensor,
    model_name: str,
    folder: Path,
) -> None:
    started = time.monotonic()
    result, circuits = explain_task(config, name, tokenizer, model, means_n, model_name)
    for circuit in circuits:
        save_circuit(circuit, folder / f"circuit-{circuit.target:g}.json")
    write_json(folder / RESULT, result)
    main = [point for point in result.curve if point.target == config.pruning.target]
    told = (
        f"{main[0].nodes} nodes, {main[0].edges} edges, test loss {main[0].test.calibrated_loss:.3f}"
        if main
        else result.reason
    )
    log.info("%s: %s: %s (%.0f s)", config.name, name, told, time.monotonic() - started)


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

    task, sizes, target = TASKS[name], config.tasks, config.pruning.target

    def pairs(split: Split, n: int) -> TaskBatch:
        return encode_pairs(task, make_pairs(task, split, n, sizes.seed), tokenizer)

    try:
        data = TaskData(
            train=pairs("train", sizes.n_train_pairs),
            select=pairs("select", sizes.n_select_pairs),
            test=pairs("test", sizes.n_test_pairs),
        )
    except NotAskable as error:
        return result("not_askable", error.reason), []
    pruner = Pruner(model, means_n, data)
    select, test = pruner.unpruned()
    if select.loss > target:
        return result(
            "not_learned", f"unpruned loss {select.loss:.3f} is above {target:g} nats", unpruned=test
        ), []
    empty = pruner.select_loss(torch.zeros(len(means_n), dtype=torch.bool))
    if empty <= target:
        return result("empty_solves", f"the empty circuit has loss {empty:.3f}", unpruned=test), []
    circuits = find_circuits(pruner, name, model_name, config.pruning)
    curve = tuple(
        CurvePoint(target=c.target, nodes=len(c.nodes), edges=len(c.edges), select=c.select, test=c.test)
        for c in circuits
    )
    if target not in {c.target for c in circuits}:
        return result(
            "no_circuit", f"no set of nodes reaches {target:g} nats", unpruned=test, curve=curve
        ), circuits
    path = f"circuits/{name}/circuit-{target:g}.json"
    return result("circuit", "", unpruned=test, curve=curve, circuit=path), circuits


def make_record(
    config: RunConfig,
    overrides: list[str],
    name: str,
    tokens: Path,
    model_folder: Path,
    circuit_folders: dict[str, Path],
) -> RunRecord:
    """Everything that was measured, from the stages' folders."""
    tasks = tuple(
        validate(TaskResult, read_json(folder / RESULT), str(folder / RESULT))
        for folder in circuit_folders.values()
    )
    weights, nonzeros = count_weights(load_model(model_folder))
    solved = [
        point
        for task in tasks
        if task.status == "circuit"
        for point in task.curve
        if point.target == config.pruning.target
    ]
    measured: dict[str, float] = {
        **read_json(model_folder / VALIDATION),
        metrics.WEIGHTS.name: weights,
        metrics.MODEL_NONZEROS.name: nonzeros,
        metrics.TASKS_ASKED.name: sum(task.status != "not_askable" for task in tasks),
        metrics.TASKS_LEARNED.name: sum(
            task.status in ("circuit", "no_circuit", "empty_solves") for task in tasks
        ),
        metrics.TASKS_SOLVED.name: len(solved),
    }
    if solved:
        measured[metrics.GEOMEAN_EDGES.name] = geometric_mean([max(1, point.edges) for point in solved])
        measured[metrics.GEOMEAN_NODES.name] = geometric_mean([max(1, point.nodes) for point in solved])
    plain = config.model_dump(mode="json")
    return RunRecord(
        name=name,
        sweep=config.sweep,
        overrides=tuple(overrides),
        config=plain,
        config_hash=content_hash(plain),
        seeds={"seed": config.seed, "tasks": config.tasks.seed, "pruning": config.pruning.seed},
        stages={"tokens": tokens.name, "model": model_folder.name}
        | {f"circuits/{task}": folder.name for task, folder in circuit_folders.items()},
        metrics=measured,
        tasks=tasks,
        **environment(),
    )


def link(path: Path, target: Path) -> None:
    """A relative symbolic link to a stage's folder; replaces an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
