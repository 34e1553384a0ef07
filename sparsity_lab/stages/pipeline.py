"""A run, stage by stage: tokens → model → circuits → examples → evidence → record.

The run's own folder holds the record, the config, pictures, and links to the stages' folders.
"""

import logging
import time
from pathlib import Path
from typing import Any

import yaml

from sparsity_lab.config import RunConfig
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import locked, write_json, write_text
from sparsity_lab.core.names import SINGLE
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.core.stage import Built
from sparsity_lab.data.packed import TOKENIZER
from sparsity_lab.data.prepare import prepare
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.importers.imported import ImportedConfig
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.results.connection import choose_mode
from sparsity_lab.results.metrics_log import MetricsLog
from sparsity_lab.results.record import METRICS_FILE, RunRecord, read_record, write_record
from sparsity_lab.results.run_picture import draw_run
from sparsity_lab.results.sweep_picture import draw_sweep
from sparsity_lab.results.tracking import Tracker, track
from sparsity_lab.stages.agreement import agreement
from sparsity_lab.stages.baselines import baselines
from sparsity_lab.stages.circuits import task_circuits
from sparsity_lab.stages.context import ModelContext
from sparsity_lab.stages.evidence import circuit_evidence
from sparsity_lab.stages.examples import task_examples
from sparsity_lab.stages.finished import Finished, make_record
from sparsity_lab.stages.finished_model import FinishedModel, finished_model
from sparsity_lab.stages.imported import imported_model
from sparsity_lab.stages.model import help_train, trained_model
from sparsity_lab.stages.next_step import next_step
from sparsity_lab.stages.numbers import replaced_numbers, tell_replaced
from sparsity_lab.stages.parallel import preload
from sparsity_lab.stages.preflight import check_inputs
from sparsity_lab.stages.recorded import keep_copy
from sparsity_lab.stages.reference import FOLDER, reference_config
from sparsity_lab.stages.shortcuts import task_shortcuts
from sparsity_lab.stages.snapshots import snapshot_circuits
from sparsity_lab.stages.steering import steered_tasks
from sparsity_lab.stages.validation import validation

log = logging.getLogger(__name__)


def run(config: RunConfig, overrides: list[str], of: Path | None = None) -> tuple[RunRecord, bool]:
    """Do everything that `config` asks for, reusing finished stages.

    With `of`, the text and the model are those of a finished run, whatever version of this program made them.
    Returns the record, which is written too, and whether some stage of it is another than last time. If
    another process is working on this run, wait for it.
    """
    prepare_processor(config.threads, config.kernels)
    preload({stage.__module__ for stage in (task_circuits, task_examples, circuit_evidence)})
    root = config.root.absolute
    folder = RunFolder(root / (config.sweep_name or SINGLE) / f"{config.name}-{config.digest[:6]}")
    with locked(folder.path):
        before = _stages_of(folder) if folder.timings.exists() else None  # the timings are written last
        record, seconds = _run(config, overrides, root, folder, of)
        is_new = record.stages != before
        if is_new:
            write_json(folder.timings, seconds)
        keep_copy(config, record, folder)
    log.info("%s: done in %.0f s, record in %s", record.name, sum(seconds.values()), folder.path)
    if not config.sweep_name:
        log.info("%s", next_step(record, folder.path))
    return record, is_new


def _stages_of(folder: RunFolder) -> dict[str, str] | None:
    """The stages of the record that an earlier run left; None if it can't be read."""
    try:
        return read_record(folder.record).stages
    except UserError:
        return None


def help_run(config: RunConfig) -> None:
    """Train as one of the processes, but the first, that srun or torchrun started for a run.

    Refuses the config for the same reasons as the first process: it would wait for a refused one for ever.
    """
    prepare_processor(config.threads, config.kernels)
    _check(config)
    root = config.root.absolute
    help_train(config, prepare(config.corpus, config.tokenizer, root), root)


def _check(config: RunConfig, there: FinishedModel | None = None) -> RunConfig | None:
    """Refuse before any work what can be refused; return the run of the reference model, if there is one.

    Raises:
        UserError: the reference model's run, the sizes of the inputs or a variable of W&B is wrong.
    """
    other = None
    if there is None:  # the inputs of a model that is there are not read again
        other = reference_config(config)
        check_inputs(config)
    choose_mode(config.logger)
    return other


def _run(
    config: RunConfig, overrides: list[str], root: Path, folder: RunFolder, of: Path | None
) -> tuple[RunRecord, dict[str, float]]:
    """The record, and the seconds that each part has taken."""
    clock, plain = _Clock(), config.plain
    there = None if of is None else finished_model(of, root)
    other = _check(config, there)
    tokens = prepare(config.corpus, config.tokenizer, root) if there is None else there.tokens
    replaced = replaced_numbers(config, tokens)
    tell_replaced(replaced)
    clock.lap("prepare")
    with track(
        config.logger, folder.path, name=folder.path.name, group=config.sweep_name, settings=plain
    ) as tracker:
        write_text(folder.config, yaml.safe_dump(plain, sort_keys=False))
        if there is None:
            reference = _reference_model(config, other, tokens, root)
            model = _model(config, tokens, root, tracker, reference)
        else:
            reference, model = there.reference, Built(there.model, is_new=False)
            log.info("%s: the model of %s is reused: %s", config.name, of, model.path)
        measured, made = validation(config, tokens, model.path, root), baselines(config, tokens, root)
        finished = Finished(tokens, model.path, measured, reference, replaced=replaced, baselines=made)
        folder.link_all(finished.links())
        _mirror_metrics(folder, tracker, model)
        clock.lap("train")
        context = ModelContext.of(config, tokens, model.path, root)
        _explain(config, context, finished, folder)
        clock.lap("circuits")
        if config.evidence.enabled:
            finished.evidence = circuit_evidence(config, context, finished.circuits)
        folder.link_all(finished.links())
        folder.remove_other_links(finished.links())
        record = make_record(config, overrides, folder.path.name, finished)
        write_record(record, folder.path)
        clock.lap("evidence")
        plots = [draw_run(record, folder.metrics, folder.run_picture)]
        if config.sweep_name:
            plots.append(draw_sweep(folder.path.parent, config.pruning.target, folder.sweep_picture))
        tracker.log_record(
            record, corpus=tokens, model=model.path, circuits=finished.circuit_files(), plots=plots
        )
    return record, clock.seconds


def _explain(config: RunConfig, context: ModelContext, finished: Finished, folder: RunFolder) -> None:
    """The stages between the model and the evidence, in order."""
    finished.shortcuts = task_shortcuts(config, context.tokens, context.root)
    finished.circuits = task_circuits(config, context)
    folder.link_all(finished.links())
    finished.examples = task_examples(config, context, finished.circuits)
    finished.snapshots = snapshot_circuits(config, context.tokens, context.folder, context.root)
    if finished.reference is not None:
        finished.agreement = agreement(context, finished.reference, config.trainer.final_windows)
        if config.steering is not None:
            finished.steering = steered_tasks(config, context, finished.reference, finished.circuits)


def _model(config: RunConfig, tokens: Path, root: Path, tracker: Tracker, reference: Path | None) -> Built:
    if isinstance(config.model, ImportedConfig):
        return imported_model(config, tokens, root, tracker.loggers)
    return trained_model(config, tokens, root, tracker.loggers, reference)


def _reference_model(config: RunConfig, reference: RunConfig | None, tokens: Path, root: Path) -> Path | None:
    """The folder of the reference model, if the run has one; trained or read first by the run `reference`.

    Raises:
        UserError: the given model can't be read, or has another vocabulary.
    """
    if config.reference is None:
        return None
    if reference is None:
        assert config.reference.folder is not None
        key, folder = FOLDER, config.reference.folder.absolute
    elif isinstance(reference.model, ImportedConfig):
        key, folder = "reference.model.path", imported_model(reference, tokens, root, _own_log).path
    else:
        return trained_model(reference, tokens, root, _own_log).path
    theirs, ours = load_model(folder).vocab_size, load_tokenizer(tokens / TOKENIZER).vocab_size
    if theirs != ours:
        raise UserError(f"{key}: {folder}: a vocabulary of {theirs}; the tokenizer has {ours}")
    return folder


def _own_log(folder: Path) -> list[Any]:
    return [MetricsLog(folder)]


def _mirror_metrics(folder: RunFolder, tracker: Tracker, model: Built) -> None:
    """Copy the training curves into the run's folder; send W&B the rows that it lacks."""
    write_text(folder.metrics, (model.path / METRICS_FILE).read_text())
    tracker.replay(folder.metrics)


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now
