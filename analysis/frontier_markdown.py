"""The tables of a frontier in Markdown (tables.md): every model, and the ratios by tasks and by target."""

from collections.abc import Iterable, Sequence

from analysis import frontier_tables as tables
from analysis.comparison import DRAWN, Ratio
from analysis.models import MEASURES, Configuration, Model, Target
from sparsity_lab.results.style import plain

Rows = Sequence[Sequence[str]]
MARKUP = {"|": "/", "<": "&lt;", "[": "(", "]": ")", "`": "'"}  # a name may not begin any


def document(
    compared: Sequence[Configuration],
    tasks: Sequence[str],
    ratios: Sequence[Ratio],
    parts: Sequence[Ratio],
    target: Target,
) -> str:
    """Return the file: models, ratios on the `tasks` of the pictures, on all tasks, and on parts of them.

    `ratios` are on all tasks of each configuration, at every target; `parts` are at `target`.
    """
    equal = "Dense / sparse at equal loss"
    drawn = [one for one in parts if one.among == DRAWN]
    others = [one for one in parts if one.among != DRAWN]
    sections = [
        (f"Models; sizes at {target} over the {len(tasks)} tasks of the pictures", _models(compared, tasks)),
        (f"{equal}, on the tasks of the pictures, {target}", _ratios(drawn, ())),
        (f"{equal}, on all tasks that the compared models have", _ratios(ratios, ("target",))),
        (f"{equal}, on parts of the tasks, {target}", _ratios(others, ("among",))),
    ]
    written = [f"## {title}\n\n{markdown(rows)}" for title, rows in sections if len(rows) > 1]
    return "\n\n".join(["# Tables of the frontier", *written]) + "\n"


def markdown(rows: Rows) -> str:
    """Lay out a Markdown table whose first row is the header. No cell can break it or contain markup."""
    marked = str.maketrans(MARKUP)
    head, *rest = (f"| {' | '.join(plain(cell).translate(marked) for cell in row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def _models(compared: Sequence[Configuration], tasks: Sequence[str]) -> Rows:
    """Lay out a row for each model, by falling loss of its configuration."""
    header = (
        "configuration", "seed", "weights", "nonzeros", "learning rate", "format", "loss",
        "on generated programs", "on real source", "tasks learned", *MEASURES.values(),
    )  # fmt: skip
    ordered = sorted(compared, key=lambda one: -one.loss)
    return [
        header,
        *(
            (one.name, *_about(model, tasks))
            for one in ordered
            for model in sorted(one.models, key=lambda model: model.seed or 0)
        ),
    ]


def _about(model: Model, tasks: Sequence[str]) -> list[str]:
    sizes = (tables.mean_size(model, tasks, measure) for measure in MEASURES)
    return [
        "-" if model.seed is None else str(model.seed),
        f"{model.weights:,}",
        f"{model.nonzeros:,}",
        tables.or_dash(model.learning_rate, "g"),
        model.precision or "-",
        f"{model.loss:.3f}",
        tables.or_dash(model.by_component.get("grammar"), ".3f"),
        tables.or_dash(model.by_component.get("real"), ".2f"),
        str(len(model.learned)),
        *(tables.or_dash(size, ",.0f") for size in sizes),
    ]


def _ratios(ratios: Iterable[Ratio], about: Sequence[str]) -> Rows:
    """Lay out a row for each configuration and each value of `about`, "target" or "among"."""
    rows: dict[tuple[str, ...], dict[str, Ratio]] = {}
    for one in sorted(ratios, key=lambda one: (one.width, -one.loss)):
        more = {"target": str(Target(one.target, one.target_kind)), "among": one.among}
        key = one.sparse_model, f"{one.loss:.3f}", *(more[name] for name in about)
        rows.setdefault(key, {})[one.measure] = one
    header = ("sparse configuration", "loss", *about, *MEASURES.values(), "fewest seeds", "interval over")
    return [header, *((*key, *_cells(found)) for key, found in rows.items())]


def _cells(found: dict[str, Ratio]) -> list[str]:
    every = list(found.values())
    if all(one.ratio is None for one in every):  # say why once
        return [every[0].note, *["-"] * (len(MEASURES) + 1)]
    about = [one.resampled for one in every] + [one.note for one in every if one.ratio is not None]
    told = "; ".join(dict.fromkeys(text for text in about if text))
    cells = [tables.words(found.get(measure)) for measure in MEASURES]
    return [*cells, str(min(one.seeds for one in every)), told]
