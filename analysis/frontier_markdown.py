"""The tables of a frontier in Markdown: every model, and the ratios by tasks and by target (tables.md)."""

from collections.abc import Iterable, Iterator, Sequence

from analysis.comparison import DRAWN, Ratio
from analysis.models import MEASURES, Configuration, Model, Target
from sparsity_lab.results.summary import geometric_mean

Rows = Sequence[Sequence[str]]


def document(
    compared: Sequence[Configuration],
    tasks: Sequence[str],
    ratios: Sequence[Ratio],
    parts: Sequence[Ratio],
    target: Target,
) -> str:
    """Return the file: the models, the ratios at `target` on `tasks` and on parts, and those at all targets.

    `tasks` are those of the pictures. `ratios` are on all tasks of each configuration and at every target,
    `parts` on parts of the tasks and at `target`.
    """
    by_name = {one.name: one for one in compared}
    drawn = [one for one in parts if one.among == DRAWN]
    others = [one for one in parts if one.among != DRAWN]
    sections = [
        (f"Models; sizes at {target} over {len(tasks)} tasks that all have", _models(compared, tasks)),
        (f"Dense / sparse at equal loss, on the {len(tasks)} tasks, {target}", _ratios(drawn, by_name)),
        (
            "Dense / sparse at equal loss, on all tasks that the compared models have",
            _ratios(ratios, by_name),
        ),
        (f"Dense / sparse at equal loss, on parts of the tasks, {target}", _ratios(others, by_name)),
    ]
    written = [f"## {title}\n\n{markdown(rows)}" for title, rows in sections if len(rows) > 1]
    return "\n\n".join(["# Tables of the frontier", *written]) + "\n"


def markdown(rows: Rows) -> str:
    """Lay out a Markdown table whose first row is the header."""
    head, *rest = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def _models(compared: Sequence[Configuration], tasks: Sequence[str]) -> Rows:
    """A row for each model, by falling loss of its configuration; what its seeds share is said once."""
    header = (
        "model", "learning rate", "format", "seed", "loss", "on generated programs", "on real source",
        "tasks learned", *MEASURES.values(),
    )  # fmt: skip
    rows = []
    for one in sorted(compared, key=lambda one: -one.loss):
        first = one.first
        shared = (title(one), f"{first.learning_rate or ''}", first.precision or "")
        for index, model in enumerate(sorted(one.models, key=lambda model: model.seed or 0)):
            rows.append((*(shared if index == 0 else ("",) * 3), *_about(model, tasks)))
    return [header, *rows]


def _about(model: Model, tasks: Sequence[str]) -> Iterator[str]:
    yield "" if model.seed is None else str(model.seed)
    yield f"{model.loss:.3f}"
    yield _number(model.by_component.get("grammar"), ".3f")
    yield _number(model.by_component.get("real"), ".2f")
    yield str(len(model.learned))
    for measure in MEASURES:
        sizes = model.sizes[measure]
        known = tasks and sizes.keys() >= set(tasks)
        yield f"{geometric_mean(sizes[task] for task in tasks):,.0f}" if known else ""


def _ratios(ratios: Iterable[Ratio], by_name: dict[str, Configuration]) -> Rows:
    """A row for each configuration, target and part of the tasks, by width and falling loss."""
    rows: dict[tuple[str, ...], dict[str, Ratio]] = {}
    for one in sorted(ratios, key=lambda one: (one.width, -one.loss)):
        if one.ratio is not None:
            model = by_name[one.sparse_model]
            target = str(Target(one.target, one.target_kind))
            about = title(model), f"{one.loss:.3f}", str(model.seeds), target, one.among, str(one.tasks)
            rows.setdefault(about, {})[one.measure] = one
    header = ("sparse model", "loss", "seeds", "target", "among", "tasks", *MEASURES.values())
    cells = [(*about, *(_words(found.get(measure)) for measure in MEASURES)) for about, found in rows.items()]
    return _without_constant([header, *cells], ("target", "among"))


def _without_constant(rows: Rows, columns: Sequence[str]) -> Rows:
    """Leave out those of `columns` that have one value."""
    dull = {
        index
        for index, name in enumerate(rows[0])
        if name in columns and len({row[index] for row in rows[1:]}) == 1
    }
    return [[cell for index, cell in enumerate(row) if index not in dull] for row in rows]


def title(one: Configuration) -> str:
    """Name a configuration by kind, width, number of weights or nonzeros, and method."""
    model = one.first
    if model.kind == "dense":
        return f"dense, d_model {model.d_model}, {model.weights:,} weights"
    method = "" if model.sparsity in (None, "magnitude") else f", {model.sparsity}"
    return f"{model.kind}, d_model {model.d_model}, {model.nonzeros:,} nonzeros{method}"


def _words(ratio: Ratio | None) -> str:
    if ratio is None or ratio.ratio is None:
        return ""
    interval = "" if ratio.low is None else f" ({ratio.low:.1f} to {ratio.high:.1f})"
    return f"{ratio.ratio:.1f}{interval}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
