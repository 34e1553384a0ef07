"""The folders that the stages of one run have left: their places in the run's folder, and their record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.circuits.standalone import BESIDE
from sparsity_lab.config import RunConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.files import read_json
from sparsity_lab.core.run_folder import (
    AGREEMENT,
    BASELINES,
    CIRCUITS,
    EVIDENCE,
    EXAMPLES,
    MODEL,
    REFERENCE,
    RESULT,
    SHORTCUTS,
    SNAPSHOTS,
    STEERING,
    TOKENS,
    VALIDATION,
    circuit_file,
    circuit_files,
)
from sparsity_lab.data.packed import read_meta
from sparsity_lab.evidence.record import load_evidence
from sparsity_lab.importers.imported import ImportedConfig
from sparsity_lab.model.checkpoints import read_card
from sparsity_lab.results.provenance import environment
from sparsity_lab.results.record import (
    CurvePoint,
    ModelSummary,
    PruningSummary,
    Replaced,
    RunRecord,
    TaskResult,
)
from sparsity_lab.results.summary import summarise
from sparsity_lab.stages import agreement, baselines
from sparsity_lab.stages.reference import measured_bridge
from sparsity_lab.stages.shortcuts import read_shortcuts
from sparsity_lab.stages.snapshots import snapshot_records
from sparsity_lab.stages.validation import VALIDATION as VALIDATION_FILE
from sparsity_lab.tasks.asked import pair_counts
from sparsity_lab.tasks.shortcuts_record import Shortcuts

Folders = Mapping[str, Path]  # a folder a task


@dataclass
class Finished:
    """Each stage's folder, or its folders by task, as far as the run asks for the stage and has come.

    `replaced` lists the numbers that the run could not use as given.
    """

    tokens: Path
    model: Path
    validation: Path
    reference: Path | None = None
    circuits: Folders = field(default_factory=dict)
    examples: Folders = field(default_factory=dict)
    snapshots: Mapping[float, Folders] = field(default_factory=dict)
    agreement: Path | None = None
    steering: Folders = field(default_factory=dict)
    evidence: Folders = field(default_factory=dict)
    replaced: tuple[Replaced, ...] = ()
    shortcuts: Folders = field(default_factory=dict)
    baselines: Path | None = None

    def links(self) -> dict[str, Path]:
        """Every folder by its place in the run's folder."""
        links = {TOKENS: self.tokens, MODEL: self.model, VALIDATION: self.validation}
        links |= _below(CIRCUITS, self.circuits) | _below(EXAMPLES, self.examples)
        for at, folders in self.snapshots.items():
            links |= _below(f"{SNAPSHOTS}/{at}/{CIRCUITS}", folders)
        if self.reference is not None:
            links[REFERENCE] = self.reference
        if self.baselines is not None:
            links[BASELINES] = self.baselines
        if self.agreement is not None:
            links[AGREEMENT] = self.agreement
        links |= _below(STEERING, self.steering) | _below(EVIDENCE, self.evidence)
        return links | _below(SHORTCUTS, self.shortcuts)

    def circuit_files(self) -> list[Path]:
        """Every circuit of the trained model, with the files beside it."""
        found = []
        for folder in self.circuits.values():
            beside = [folder / name for name in BESIDE if (folder / name).exists()]
            found += [*circuit_files(folder), *beside]
        return found


def _below(name: str, folders: Folders) -> dict[str, Path]:
    return {f"{name}/{task}": folder for task, folder in folders.items()}


def make_record(config: RunConfig, overrides: list[str], name: str, finished: Finished) -> RunRecord:
    """Everything that was measured, from the stages' folders."""
    shortcuts = read_shortcuts(finished.shortcuts)
    tasks = tuple(_result(config, task, finished, shortcuts.get(task)) for task in finished.circuits)
    return RunRecord(
        name=name,
        sweep=config.sweep_name,
        kind=config.kind,
        model=_model(config, finished.model),
        pruning=PruningSummary(
            finder=config.finder.label,
            selection=config.pruning.selection,
            polish=config.pruning.polish,
            target=config.pruning.target,
        ),
        overrides=tuple(overrides),
        config=config.plain,
        config_hash=config.digest,
        seeds={"seed": config.seed, "tasks": config.tasks.seed, "pruning": config.pruning.seed},
        stages={name: folder.name for name, folder in finished.links().items()},
        metrics=_measured(config, tasks, finished),
        tasks=tasks,
        snapshots=snapshot_records(config, finished.model, finished.snapshots, finished.circuits),
        replaced=finished.replaced,
        **environment(),
    )


def _result(config: RunConfig, name: str, finished: Finished, shortcuts: Shortcuts | None) -> TaskResult:
    path, task = finished.circuits[name] / RESULT, config.tasks.available()[name]
    more: dict[str, Any] = {"kind": task.kind, "caveat": task.caveats, "shortcuts": shortcuts}
    more["pairs"] = pair_counts(config.tasks, name)
    if name in finished.evidence:
        more["evidence"] = load_evidence(finished.evidence[name]).checks
    result = validate(TaskResult, read_json(path), str(path))
    more["curve"] = tuple(_with_pruned(point, path.parent) for point in result.curve)
    return result.model_copy(update=more)


def _with_pruned(point: CurvePoint, folder: Path) -> CurvePoint:
    """Return the point with the test scores of its pruned edges, which are in the circuit's file."""
    if point.pruned_edges is None:
        return point
    path = folder / circuit_file(point.asked, point.target_kind)
    scores = validate(Scores, read_json(path)["pruned"]["test"], str(path))
    return point.model_copy(update={"pruned": scores})


def _measured(config: RunConfig, tasks: tuple[TaskResult, ...], finished: Finished) -> dict[str, float]:
    measured: dict[str, float] = read_json(finished.validation / VALIDATION_FILE) | summarise(
        tasks, config.pruning.target
    )
    if finished.baselines is not None:
        measured |= read_json(finished.baselines / baselines.BASELINES)
        available = read_meta(finished.tokens).train.tokens
        measured[metrics.EPOCHS.name] = baselines.trained_tokens(config) / available
    if finished.agreement is not None:
        measured |= read_json(finished.agreement / agreement.AGREEMENT)
    if config.bridge is not None:
        measured |= measured_bridge(finished.model)
    return measured


def _model(config: RunConfig, folder: Path) -> ModelSummary:
    shape = read_card(folder).config
    imported = isinstance(config.model, ImportedConfig)
    return ModelSummary(
        d_model=shape.d_model,
        n_layer=shape.n_layer,
        d_head=shape.d_head,
        tokens=None if imported else config.trainer.tokens,
    )
