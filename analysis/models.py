"""The models of a frontier, read from records: losses, circuit sizes, and which differ in seeds alone.

A model's size on a task is the number of nodes, of edges, or of edges left after edge pruning, of its circuit
at one target (`MEASURES`). Models that differ in their seeds alone are one configuration.

A model is dense, or weight-sparse in one of three kinds: trained sparse from the start, sparsified (trained
from a dense model's weights) or bridged to a dense model. Each kind is compared separately.

A task that the model has not learned, or that the circuit without nodes solves, has no size. A circuit
without edges counts as one edge, so that its logarithm exists.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from sparsity_lab.circuits.circuit import TargetKind
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.metrics import Metric
from sparsity_lab.results.frames import setting
from sparsity_lab.results.record import CurvePoint, RunRecord
from sparsity_lab.results.summary import geometric_mean, learned

MEASURES = {"nodes": "nodes", "edges": "edges", "pruned_edges": "edges after edge pruning"}
K = TypeVar("K")
SEEDS = ("tasks", "pruning", "evidence")  # parts of a config with a seed of their own
ELSEWHERE = (
    "seed",
    "root",
    "sweep_name",
    "threads",
    "kernels",
    "logger",
    "records",
    "evidence",
)  # change no circuit


class Target(NamedTuple):
    """A task loss in nats, or what is added to the whole model's own loss."""

    value: float
    kind: TargetKind = "absolute"

    def __str__(self) -> str:
        return f"{self.value:g} nats" + " above the whole model's loss" * (self.kind == "relative")


@dataclass(frozen=True)
class Model:
    """One run. `sizes` maps a measure to the size of each task's circuit at the target, by task.

    `learned` tasks have an unpruned loss that meets the main target; they include `solved_by_nothing`, the
    tasks that the circuit without nodes solves.

    `id` is the hash of the run's config, and `group` what it has in common with runs of other seeds. `loss`
    is the pretraining loss on validation text, in nats per token, and `by_component` that on its generated
    and its real text, where the record has them. `ngrams` maps n to the loss of an n-gram model of as many
    training tokens. `kinds` maps a task to what it asks ("copy", ...), `unpruned` to the whole model's task
    loss, `test_losses` to the circuit's; both are raw losses on the test pairs. `bags` maps a task to the
    accuracy of a bag of tokens. `sparsity` is the method of training, `tokens` those that the model was
    trained on, `precision` the number format of the training. They, `learning_rate` and `seed` are None where
    records lack them.
    """

    id: str
    group: str
    name: str
    kind: str
    sparsity: str | None
    tokens: int | None
    seed: int | None
    d_model: int
    weights: int
    nonzeros: int
    loss: float
    learned: frozenset[str]
    solved_by_nothing: frozenset[str]
    sizes: Mapping[str, Mapping[str, int]]
    by_component: Mapping[str, float] = field(default_factory=dict)
    ngrams: Mapping[int, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    unpruned: Mapping[str, float] = field(default_factory=dict)
    test_losses: Mapping[str, float] = field(default_factory=dict)
    bags: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float | None = None
    precision: str | None = None

    @property
    def edges(self) -> Mapping[str, int]:
        """Edges of each task's circuit."""
        return self.sizes["edges"]


@dataclass(frozen=True)
class Configuration:
    """The models that differ in their seeds alone. Their losses and log sizes are averaged."""

    name: str
    models: tuple[Model, ...]

    @property
    def first(self) -> Model:
        """One of the models, for what all have in common."""
        return self.models[0]

    @property
    def loss(self) -> float:
        """The mean pretraining loss."""
        return fmean(model.loss for model in self.models)

    @property
    def seeds(self) -> int:
        """The number of models."""
        return len(self.models)

    @cached_property
    def tasks(self) -> frozenset[str]:
        """The tasks for which at least one seed has a circuit."""
        return frozenset().union(*(model.edges for model in self.models))

    def of(self, measure: str) -> list[Mapping[str, int]]:
        """The sizes of each seed's circuits."""
        return [model.sizes[measure] for model in self.models]

    def size(self, tasks: Iterable[str], measure: str = "edges") -> float | None:
        """Geometric mean of the sizes over `tasks`, averaged over seeds; None if a task has none."""
        return _mean_size([[of[task] for of in self.of(measure) if task in of] for task in tasks])

    def sizes_by_seed(self, tasks: Sequence[str], measure: str = "edges") -> list[float]:
        """The same for each seed that has circuits for all `tasks`."""
        return [
            geometric_mean(of[task] for task in tasks) for of in self.of(measure) if of.keys() >= set(tasks)
        ]


def _mean_size(by_task: Sequence[Sequence[int]]) -> float | None:
    if not by_task or not all(by_task):
        return None
    return geometric_mean(geometric_mean(sizes) for sizes in by_task)


def targets(records: Iterable[RunRecord]) -> list[Target]:
    """List every target at which some circuit was found, ascending, the absolute ones first."""
    points = (point for record in records for task in record.tasks for point in task.curve)
    found = {Target(point.asked, point.target_kind) for point in points}
    return sorted(found, key=lambda target: (target.kind, target.value))


def models(records: Iterable[RunRecord], target: Target) -> list[Model]:
    """Return one model per config hash, the last one recorded, ordered by kind, width and nonzeros.

    Imported models, which were trained on other text, are left out.

    Raises:
        UserError: a record lacks a value that the frontier needs.
    """
    latest = {record.config_hash: record for record in records if record.kind != "imported"}
    found = [_model(record, target) for record in latest.values()]
    return sorted(found, key=lambda model: (model.kind, model.d_model, model.nonzeros, model.name))


def on_text(record: RunRecord, text: str) -> RunRecord:
    """Return `record` with its pretraining loss, and those of n-grams, on one part of the validation text.

    Raises:
        UserError: the record does not tell losses by parts.
    """
    part_of = {
        metrics.VALIDATION_LOSS: metrics.COMPONENT_LOSS[text],
        metrics.VALIDATION_ERROR: metrics.COMPONENT_ERROR[text],
        **{metrics.NGRAM_LOSS[n, ""]: metrics.NGRAM_LOSS[n, text] for n in metrics.NGRAMS},
    }
    if metrics.COMPONENT_LOSS[text].name not in record.metrics:
        raise UserError(f"record of {record.name}: has no loss on {text} text")
    names = {whole.name: part.name for whole, part in part_of.items()}
    found = {whole: record.metrics[part] for whole, part in names.items() if part in record.metrics}
    others = {name: value for name, value in record.metrics.items() if name not in names}
    return record.model_copy(update={"metrics": others | found})


def configurations(compared: Iterable[Model]) -> list[Configuration]:
    """Group the models that differ in their seeds alone, in the order of the first of each.

    A group of several is named without the hash in a run's name, unless another one would have the same name.
    """
    groups: dict[str, list[Model]] = {}
    for model in compared:
        groups.setdefault(model.group, []).append(model)
    plain = {key: group[0].name.removesuffix(f"-{group[0].id[:6]}") for key, group in groups.items()}
    often = Counter(plain.values())
    return [
        Configuration(plain[key] if group[1:] and often[plain[key]] == 1 else group[0].name, tuple(group))
        for key, group in groups.items()
    ]


def _model(record: RunRecord, target: Target) -> Model:
    try:
        weights, nonzeros, loss = (
            record.metrics[metric.name]
            for metric in (metrics.WEIGHTS, metrics.MODEL_NONZEROS, metrics.VALIDATION_LOSS)
        )
    except KeyError as error:
        raise UserError(f"record of {record.name}: lacks {error}") from None
    if record.model.d_model is None:
        raise UserError(f"record of {record.name}: lacks model.d_model")
    found = {task.task: task.at(*target) for task in learned(record.tasks)}
    points = {task: point for task, point in found.items() if point is not None}
    return Model(
        id=record.config_hash,
        group=_group(record, int(nonzeros)),
        name=record.name,
        kind=record.kind,
        sparsity=setting(record, "sparsity", "kind"),
        tokens=record.model.tokens,
        seed=record.seeds.get("seed"),
        d_model=record.model.d_model,
        weights=int(weights),
        nonzeros=int(nonzeros),
        loss=loss,
        learned=frozenset(found),
        solved_by_nothing=frozenset(task.task for task in record.tasks if task.status == "empty_solves"),
        sizes={measure: _sizes(points, measure) for measure in MEASURES},
        by_component=_known(record, metrics.COMPONENT_LOSS),
        ngrams=_known(record, {n: metrics.NGRAM_LOSS[n, ""] for n in metrics.NGRAMS}),
        kinds={task.task: task.kind for task in record.tasks if task.kind},
        unpruned={task.task: task.unpruned.raw_loss for task in record.tasks if task.unpruned is not None},
        test_losses={task: point.test.raw_loss for task, point in points.items()},
        bags={task.task: task.shortcuts.bag_accuracy for task in record.tasks if task.shortcuts is not None},
        learning_rate=setting(record, "trainer", "learning_rate"),
        precision=setting(record, "trainer", "precision"),
    )


def _sizes(points: Mapping[str, CurvePoint], measure: str) -> dict[str, int]:
    sizes = {task: getattr(point, measure) for task, point in points.items()}
    return {task: size for task, size in sizes.items() if size is not None}


def _group(record: RunRecord, nonzeros: int) -> str:
    """What runs of other seeds have in common: the config without seeds, or else kind and shape."""
    config: dict[str, Any] = {key: part for key, part in record.config.items() if key not in ELSEWHERE}
    for name in SEEDS:
        if isinstance(part := config.get(name), dict):
            config[name] = {key: value for key, value in part.items() if key != "seed"}
    shape = record.model.model_dump()
    return json.dumps([record.kind, config or [shape, nonzeros]], sort_keys=True, default=str)


def _known(record: RunRecord, wanted: Mapping[K, Metric]) -> dict[K, float]:
    """Those of the metrics that the record has."""
    return {
        key: record.metrics[metric.name] for key, metric in wanted.items() if metric.name in record.metrics
    }
