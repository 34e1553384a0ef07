"""The tables of the frontier: points.csv, ratios.csv and ratios_by_part.csv, and the same for a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from analysis import comparison, frontier, program
from analysis.comparison import Ratio
from analysis.models import MEASURES, Configuration, Model, Target, configurations, models
from sparsity_lab.core.metrics import COMPONENTS
from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.summary import geometric_mean

# the columns that come first, in this order
RATIO_COLUMNS = (
    "sparse_model", "width", "nonzeros", "loss", "measure", "target", "target_kind", "ratio", "low", "high",
    "tasks", "seeds",
)  # fmt: skip
NOT_IN_POINTS = ("sizes", "kinds", "unpruned", "test_losses", "bags", "group", "learned", "solved_by_nothing")


def write(path: Path, rows: "pd.DataFrame | Iterable[dict[str, Any]]", columns: Sequence[str] = ()) -> Path:
    """Write a table as CSV. A table without rows has `columns` alone."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    frame = frame if len(frame.columns) else pd.DataFrame(columns=list(columns))
    frame.to_csv(path, index=False, lineterminator="\n")
    return path


def points(records: Sequence[RunRecord], targets: Iterable[Target]) -> Iterator[dict[str, Any]]:
    """Yield a row per run and target, with the geometric means over the run's own circuits.

    `compared_...` are over the `tasks_compared` that all drawn configurations have, and empty for the others.
    """
    for target in targets:
        groups = configurations(models(records, target))
        alike = frontier.comparable([one for one in groups if one.tasks])
        tasks = frontier.shared(alike)
        drawn = {model.id for one in alike for model in one.models if model.edges.keys() >= set(tasks)}
        for one in groups:
            for model in one.models:
                yield _point(one, model, target, tasks if model.id in drawn else [])


def _point(one: Configuration, model: Model, target: Target, tasks: Sequence[str]) -> dict[str, Any]:
    row = {name: value for name, value in vars(model).items() if name not in NOT_IN_POINTS}
    row |= {f"loss_{name}": loss for name, loss in row.pop("by_component").items()}
    row |= {f"{n}gram": loss for n, loss in row.pop("ngrams").items()}
    tests = model.test_losses.values()
    return row | {
        "configuration": one.name,
        "target": target.value,
        "target_kind": target.kind,
        "learned": len(model.learned),
        "solved_by_nothing": len(model.solved_by_nothing),
        "tasks_with_circuit": len(model.edges),
        **{f"geomean_{measure}": mean_size(model, model.edges, measure) for measure in MEASURES},
        "tasks_compared": len(tasks),
        **{f"compared_{measure}": mean_size(model, tasks, measure) for measure in MEASURES},
        "test_loss": fmean(tests) if tests else None,
    }


def mean_size(model: Model, tasks: Iterable[str], measure: str) -> float | None:
    """Return the geometric mean of a model's sizes over `tasks`; None without tasks or if it lacks one."""
    sizes = model.sizes[measure]
    tasks = list(tasks)
    return geometric_mean(sizes[task] for task in tasks) if tasks and sizes.keys() >= set(tasks) else None


def ratio_rows(ratios: Iterable[Ratio]) -> Iterator[dict[str, Any]]:
    """Yield a row per ratio; a list of names is one cell."""
    for one in ratios:
        row = asdict(one)
        ordered = {name: row[name] for name in (*RATIO_COLUMNS, *row)}
        yield {key: " ".join(value) if isinstance(value, tuple) else value for key, value in ordered.items()}


def models_table(compared: Sequence[Model], tasks: Sequence[str], alike: Sequence[Configuration]) -> str:
    """Lay out a row per model; sizes are over `tasks`, for models of `alike`."""
    drawn = {model.id for one in alike for model in one.models if model.edges.keys() >= set(tasks)}
    components = [name for name in COMPONENTS if any(name in model.by_component for model in compared)]
    measures = [measure for measure in MEASURES if any(model.sizes[measure] for model in compared)]
    header = (
        "kind",
        "sparsity",
        "d_model",
        "seed",
        "nonzeros",
        "loss",
        *components,
        "learned",
        "circuits",
        *measures,
    )
    rows = [
        (
            model.kind,
            model.sparsity or "-",
            str(model.d_model),
            "-" if model.seed is None else str(model.seed),
            f"{model.nonzeros:,}",
            f"{model.loss:.4f}",
            *(or_dash(model.by_component.get(name), ".4f") for name in components),
            str(len(model.learned)),
            str(len(model.edges)),
            *(
                or_dash(mean_size(model, tasks, measure) if model.id in drawn else None, ",.1f")
                for measure in measures
            ),
        )
        for model in compared
    ]
    return program.table([header, *rows])


def ratios_table(
    sparse: Sequence[Configuration], ratios: Sequence[Ratio], parts: Sequence[Ratio] = ()
) -> str:
    """Lay out a row per sparse configuration: its ratio in each measure, and on well-learned tasks."""
    measures = [measure for measure in MEASURES if any(one.measure == measure for one in ratios)]
    well = {one.sparse_model: one for one in parts if one.measure == "edges" and "below" in one.among}
    header = ("model", "kind", "nonzeros", "loss", "seeds", *(MEASURES[name] for name in measures))
    header += ("edges, well learned",) * bool(well)
    rows = []
    for model in sparse:
        found = {one.measure: one for one in ratios if one.sparse_model == model.name}
        wanted = [found.get(measure) for measure in measures] + [well.get(model.name)] * bool(well)
        cells = [words(one) for one in wanted]
        if wanted and all(one is None or one.ratio is None for one in wanted):  # say why once
            cells[1:] = ["-"] * len(cells[1:])
        about = model.name, model.first.kind, f"{model.first.nonzeros:,}", f"{model.loss:.4f}"
        rows.append((*about, str(model.seeds), *cells))
    return program.table([header, *rows])


def words(ratio: Ratio | None) -> str:
    """Write a ratio with its interval and number of tasks, or why there is none."""
    if ratio is None:
        return "-"
    if ratio.ratio is None:
        return ratio.note
    interval = "" if ratio.low is None else f" [{ratio.low:.1f}, {ratio.high:.1f}]"
    return f"{ratio.ratio:.1f}{interval} on {ratio.tasks}"


def or_dash(value: float | None, form: str) -> str:
    """Format a number; a dash stands for None."""
    return "-" if value is None else format(value, form)


def drop_outs(
    sparse: Sequence[Configuration], dense: Sequence[Configuration], alike: Sequence[Configuration]
) -> Iterator[str]:
    """Yield a line for each configuration that some comparison leaves out, and for circuits of some seeds."""
    for one in (*dense, *sparse):
        if one not in alike:
            count = f"{len(one.tasks)} circuit{'s' * (len(one.tasks) != 1)}"
            yield f"not compared on shared tasks: {one.name} has only {count}"
    for one in dense:
        if lost := [other for other in sparse if one not in comparison.usable(other, dense)]:
            yield (
                f"not on the dense side: {one.name} shares too few tasks with {len(lost)} of {len(sparse)} "
                "weight-sparse models"
            )
    for one in (*dense, *sparse):
        lacking = [
            f"{task} ({have} of {one.seeds})"
            for task in sorted(one.tasks)
            if (have := sum(task in model.edges for model in one.models)) < one.seeds
        ]
        if lacking:
            yield f"{one.name} has a circuit in some seeds only: {', '.join(lacking)}"
