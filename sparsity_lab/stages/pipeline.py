"""A run, stage by stage: tokens → model → circuits → examples → record.

The run's own folder holds the record, the config, a picture, and links to the stages' folders.
"""

import logging
import os
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import locked, read_json, write_json, write_text
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.data.prepare import prepare
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.evidence.record import load_evidence
from sparsity_lab.importers.imported import ExistingConfig
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.results.metrics_log import METRICS_FILE, MetricsLog
from sparsity_lab.results.record import (
    RunRecord,
    TaskResult,
    environment,
    geometric_mean,
    write_record,
)
from sparsity_lab.results.run_picture import draw_run
from sparsity_lab.results.sweep_picture import draw_sweep
from sparsity_lab.results.tracking import track
from sparsity_lab.stages.circuits import RESULT, task_circuits
from sparsity_lab.stages.context import TOKENIZER
from sparsity_lab.stages.evidence import circuit_evidence
from sparsity_lab.stages.examples import task_examples
from sparsity_lab.stages.imported import existing_model
from sparsity_lab.stages.model import VALIDATION, help_train, trained_model
from sparsity_lab.stages.reference import AGREEMENT, agreement, dense_config, measured_bridge, steered_tasks
from sparsity_lab.stages.snapshots import formation, snapshot_circuits, stage_names

log = logging.getLogger(__name__)

TIMINGS = "timings.json"


def run(config: RunConfig, overrides: list[str]) -> tuple[RunRecord, bool]:
    """Do all that `config` asks for, reusing finished stages.

    Returns the record, which is written too, and whether this run was not there yet. A process that wants a
    run which another is at work on waits for it.
    """
    prepare_processor(config.threads, config.kernels)
    root = Path(config.root).absolute()
    folder = root / (config.sweep or "single") / f"{config.name}-{content_hash(config)[:6]}"
    with locked(folder):
        is_new = not (folder / TIMINGS).exists()  # written last
        return _run(config, overrides, root, folder), is_new


def help_run(config: RunConfig) -> None:
    """Train as one of the processes, but the first, that srun or torchrun started for a run."""
    prepare_processor(config.threads, config.kernels)
    root = Path(config.root).absolute()
    help_train(config, prepare(config.corpus, config.tokenizer, root), root)


def _run(config: RunConfig, overrides: list[str], root: Path, folder: Path) -> RunRecord:
    started, known = time.monotonic(), (folder / TIMINGS).exists()
    tokens = prepare(config.corpus, config.tokenizer, root)
    prepared = time.monotonic()
    with track(
        config.logger, folder, name=folder.name, group=config.sweep, settings=config.model_dump(mode="json")
    ) as tracker:
        write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        dense = existing_dense(config, tokens, root)
        if isinstance(config.model, ExistingConfig):
            model_folder, is_new = existing_model(config, tokens, root, tracker.loggers)
        else:
            model_folder, is_new = trained_model(config, tokens, root, tracker.loggers, dense)
        trained = time.monotonic()
        link(folder / "tokens", tokens)
        link(folder / "model", model_folder)
        write_text(folder / METRICS_FILE, (model_folder / METRICS_FILE).read_text())
        if not is_new:
            tracker.replay(folder / METRICS_FILE)
        circuit_folders = task_circuits(config, tokens, model_folder, root)
        for task, circuit_folder in circuit_folders.items():
            link(folder / "circuits" / task, circuit_folder)
        examples = task_examples(config, tokens, model_folder, circuit_folders, root)
        more_stages = {f"examples/{task}": path for task, path in examples.items()}
        on_the_way = snapshot_circuits(config, tokens, model_folder, root)
        more_stages |= stage_names(on_the_way)
        if dense is not None:
            more_stages["dense"] = dense
            more_stages["agreement"] = agreement(config, tokens, dense, model_folder, root)
        if dense is not None and config.steering is not None:
            steered = steered_tasks(config, tokens, dense, model_folder, circuit_folders, root)
            more_stages |= {f"steering/{task}": path for task, path in steered.items()}
        explained = time.monotonic()
        if config.validation.enabled:
            evidence = circuit_evidence(config, tokens, model_folder, circuit_folders, root)
            more_stages |= {f"evidence/{task}": path for task, path in evidence.items()}
        for name, path in more_stages.items():
            link(folder / name, path)
        record = make_record(
            config, overrides, folder.name, tokens, model_folder, circuit_folders, more_stages
        ).model_copy(update={"formation": formation(config, model_folder, on_the_way, circuit_folders)})
        write_record(record, folder)
        finished = time.monotonic()
        pictures = [draw_run(record, folder / METRICS_FILE, folder / "run.png")]
        if config.sweep:
            pictures.append(draw_sweep(folder.parent, config.pruning.target, folder / "sweep.png"))
        circuits = [path for f in circuit_folders.values() for path in f.glob("circuit-*.json")]
        tracker.log_record(record, corpus=tokens, model=model_folder, circuits=circuits, plots=pictures)
    if not known:
        seconds = {
            "prepare": prepared - started,
            "train": trained - prepared,
            "circuits": explained - trained,
            "evidence": finished - explained,
        }
        write_json(folder / TIMINGS, seconds)
    log.info("%s: done in %.0f s, record in %s", folder.name, finished - started, folder)
    return record


def existing_dense(config: RunConfig, tokens: Path, root: Path) -> Path | None:
    """The folder of the existing dense model, if the run has one; trained first if it is to be trained here.

    Raises:
        UserError: the given model can't be read, or has another vocabulary.
    """
    if config.dense is None:
        return None
    if isinstance(config.dense.model, ModelConfig):
        return trained_model(dense_config(config), tokens, root, _own_log)[0]
    if isinstance(config.dense.model, ExistingConfig):
        key, folder = "dense.model.path", existing_model(dense_config(config), tokens, root, _own_log)[0]
    else:
        assert config.dense.folder is not None
        key, folder = "dense.folder", Path(config.dense.folder).absolute()
    theirs, ours = load_model(folder).vocab_size, load_tokenizer(tokens / TOKENIZER).vocab_size
    if theirs != ours:
        raise UserError(f"{key}: {folder}: a vocabulary of {theirs}; the tokenizer has {ours}")
    return folder


def _own_log(folder: Path) -> list[Any]:
    return [MetricsLog(folder)]


def make_record(
    config: RunConfig,
    overrides: list[str],
    name: str,
    tokens: Path,
    model_folder: Path,
    circuit_folders: dict[str, Path],
    more_stages: dict[str, Path],
) -> RunRecord:
    """Everything that was measured, from the stages' folders."""
    tasks = tuple(
        validate(TaskResult, read_json(folder / RESULT), str(folder / RESULT))
        for folder in circuit_folders.values()
    )
    tasks = tuple(
        task.model_copy(update={"evidence": load_evidence(more_stages[stage]).checks})
        if (stage := f"evidence/{task.task}") in more_stages
        else task
        for task in tasks
    )
    solved = [
        point for task in tasks if task.status == "circuit" and (point := task.at(config.pruning.target))
    ]
    measured: dict[str, float] = {
        **read_json(model_folder / VALIDATION),
        metrics.TASKS_ASKED.name: sum(task.status != "not_askable" for task in tasks),
        metrics.TASKS_LEARNED.name: sum(
            task.status in ("circuit", "no_circuit", "empty_solves") for task in tasks
        ),
        metrics.TASKS_SOLVED.name: len(solved),
    }
    if solved:
        measured[metrics.GEOMEAN_EDGES.name] = geometric_mean([max(1, point.edges) for point in solved])
        measured[metrics.GEOMEAN_NODES.name] = geometric_mean([max(1, point.nodes) for point in solved])
        measured[metrics.TEST_LOSS.name] = fmean(point.test.calibrated_loss for point in solved)
    if "agreement" in more_stages:
        measured |= read_json(more_stages["agreement"] / AGREEMENT)
    if config.bridge is not None:
        measured |= measured_bridge(model_folder)
    plain = config.model_dump(mode="json")
    return RunRecord(
        name=name,
        sweep=config.sweep,
        overrides=tuple(overrides),
        config=plain,
        config_hash=content_hash(plain),
        seeds={"seed": config.seed, "tasks": config.tasks.seed, "pruning": config.pruning.seed},
        stages={"tokens": tokens.name, "model": model_folder.name}
        | {f"circuits/{task}": folder.name for task, folder in circuit_folders.items()}
        | {name: folder.name for name, folder in more_stages.items()},
        metrics=measured,
        tasks=tasks,
        **environment(),
    )


def link(path: Path, target: Path) -> None:
    """A relative symbolic link to a stage's folder; replaces an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
