"""Draw and save the frontier's figures. Text from records is drawn literally (S12)."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.frontier import CurveRow, Model, baselines, shared, size
from sparsity_lab.results.drawing import Annotation, Axes, Bbox, Figure, Line2D, mpl
from sparsity_lab.results.style import GREY, KINDS, STYLE, log_axis, plain, short

BASELINE = "#8C564B"
OFFSETS = ((6, 5), (6, -12), (-6, 5), (-6, -12), (0, 9), (0, -17), (14, 0), (-14, 0), (10, 16), (-10, -24))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as PNG (200 dpi) and SVG, reproducibly to the byte; return the files."""
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with mpl.rc_context(STYLE):
        figure.savefig(files[0], dpi=200, metadata={"Software": None})
        figure.savefig(files[1], metadata={"Date": None})
    return files


def draw_frontier(compared: Sequence[Model], tasks: Sequence[str], target: float) -> Figure:
    """(a) Pretraining loss against geometric-mean edges over `tasks`, one marker per model."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 5.0))
        axes = figure.subplots()
        point = {model.id: (size(model, tasks), model.loss) for model in compared}
        widths = sorted({model.d_model for model in compared})
        colours = {width: _colour(i, len(widths)) for i, width in enumerate(widths)}
        kinds = [kind for kind in KINDS if any(model.kind == kind for model in compared)]
        dense = sorted((model for model in compared if model.kind == "dense"), key=lambda model: model.loss)
        sparse = [model for model in compared if model.kind != "dense"]

        for group in _groups(sparse, lambda model: (model.kind, model.d_model)):
            _line(axes, point, group, color=colours[group[0].d_model], linewidth=1.6)
        for group in _groups(sparse, lambda model: (model.kind, f"{model.nonzeros:.1e}")):
            _line(axes, point, group, color="#B0B0B0", linewidth=1.0, linestyle=":")
        _line(axes, point, dense, color=GREY, linewidth=1.2, linestyle="--")
        for model in compared:
            style: Any = {"color": colours[model.d_model], "markersize": 7, "markeredgecolor": "white"}
            axes.plot(*point[model.id], KINDS[model.kind][1], **style)

        log_axis(axes, "x")
        axes.margins(0.12)
        outside = _baselines(axes, compared)
        axes.set_xlabel(f"Edges in the circuit (geometric mean of {_count(tasks)}, target {target:g} nats)")
        axes.set_ylabel("Pretraining loss on validation text (nats per token)")
        axes.set_title("Capability against circuit size (lower left is better)", loc="left")
        handles = [
            Line2D([], [], color=colours[width], marker="o", linestyle="", label=f"d_model {width}")
            for width in widths
        ]
        for kind in kinds:
            label = kind if kind == "dense" else f"{kind}, same width"
            handle = Line2D([], [], color=GREY, marker=KINDS[kind][1], label=label)
            handle.set_linestyle("--" if kind == "dense" else "-")
            handles.append(handle)
        if sparse:
            handles.append(Line2D([], [], color="#B0B0B0", linestyle=":", label="same kind and nonzeros"))
        handles.append(Line2D([], [], linestyle="", label="labels: nonzero weights"))
        handles += [Line2D([], [], linestyle="", label=text) for text in outside]
        figure.legend(handles=handles, loc="outside right upper")
        _label(figure, axes, [(*point[model.id], short(model.nonzeros)) for model in compared])
        return figure


def _baselines(axes: Axes, compared: Sequence[Model]) -> list[str]:
    """Draw n-gram losses near the models' as lines; return those too far to be drawn, in words.

    A band instead of a line shows n-gram models of different numbers of tokens.
    """
    losses = [model.loss for model in compared]
    reach = 2 * max(max(losses) - min(losses), 0.1)
    left, right = axes.get_xlim()
    outside = []
    for n, (low, high) in baselines(compared).items():
        if low > max(losses) + reach or high < min(losses) - reach:
            outside.append(f"{n}-gram: {low:.2f}" + (f" to {high:.2f}" if high - low > 0.005 else ""))
            continue
        if high > low:
            axes.axhspan(low, high, color=BASELINE, alpha=0.15, linewidth=0, zorder=0)
        axes.plot([left, right], [low, low], color=BASELINE, linewidth=1.0, linestyle="-.", zorder=0)
        axes.annotate(
            f"{n}-gram",
            (right, low),
            (-4, 3),
            ha="right",
            textcoords="offset points",
            fontsize=8,
            color=BASELINE,
        )
    axes.set_xlim(left, right)
    return outside


def draw_target_curve(rows: Sequence[CurveRow], dense: Model, sparse: Model) -> Figure:
    """(b) Geometric-mean edges against target loss for two models of matched pretraining loss."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4))
        axes = figure.subplots()
        x = [row.target for row in rows]
        for model, sizes in (
            (dense, [row.dense_edges for row in rows]),
            (sparse, [row.sparse_edges for row in rows]),
        ):
            colour, marker = KINDS[model.kind]
            axes.plot(x, sizes, marker=marker, color=colour, linewidth=1.8, label=describe(model))
        log_axis(axes, "x")
        if len(x) <= 8:
            axes.set_xticks(x)
        log_axis(axes, "y")
        axes.margins(y=0.15)
        axes.set_xlabel("Target task loss (nats)")
        axes.set_ylabel("Edges in the circuit (geometric mean)")
        counts = sorted({row.tasks for row in rows})
        over = f"{counts[0]} tasks" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} tasks, as shared"
        axes.set_title(f"Circuit size against target loss ({over})", loc="left")
        if len(counts) > 1:
            for row in rows:
                axes.annotate(
                    str(row.tasks), (row.target, max(row.dense_edges, row.sparse_edges)), (0, 8), ha="center",
                    textcoords="offset points", fontsize=8, color="#606060",
                )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=1)
        return figure


def draw_tasks(dense: Model, sparse: Model, target: float) -> Figure:
    """(c) Edges of each task's circuit in the two models of matched pretraining loss, by their ratio."""
    tasks = shared([dense, sparse])
    tasks.sort(key=lambda task: math.log(max(dense.edges[task], 1) / max(sparse.edges[task], 1)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.7 + 0.27 * len(tasks)))
        axes = figure.subplots()
        for y, task in enumerate(tasks):
            ends = [max(model.edges[task], 1) for model in (sparse, dense)]
            axes.plot(ends, [y, y], color="#C8C8C8", linewidth=2, zorder=1)
        for model in (dense, sparse):
            colour, marker = KINDS[model.kind]
            sizes = [max(model.edges[task], 1) for task in tasks]
            axes.plot(sizes, range(len(tasks)), marker, color=colour, label=describe(model), zorder=2)
        log_axis(axes, "x")
        axes.set_yticks(range(len(tasks)), [plain(task) for task in tasks])
        axes.set_ylim(-0.7, len(tasks) - 0.3)
        axes.set_xlabel(f"Edges in the circuit (target {target:g} nats)")
        axes.set_title(f"Circuit size, task by task ({_count(tasks)})", loc="left")
        figure.legend(loc="outside lower center", ncols=1)
        return figure


def describe(model: Model) -> str:
    """Describe a model in a legend."""
    return plain(
        f"{model.kind}, d_model {model.d_model}, {short(model.nonzeros)} nonzeros, loss {model.loss:.3f}"
    )


def _count(tasks: Sequence[str]) -> str:
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"


def _colour(index: int, count: int) -> tuple[float, float, float, float]:
    return mpl.colormaps["viridis"](0.85 * index / max(count - 1, 1))


def _groups(compared: Iterable[Model], key: Callable[[Model], object]) -> list[list[Model]]:
    groups: dict[object, list[Model]] = {}
    for model in compared:
        groups.setdefault(key(model), []).append(model)
    return list(groups.values())


def _line(axes: Axes, point: dict[str, tuple[float, float]], group: Sequence[Model], **style: Any) -> None:
    ordered = [point[m.id] for m in sorted(group, key=lambda model: (model.nonzeros, model.d_model))]
    axes.plot([x for x, _ in ordered], [y for _, y in ordered], zorder=1, **style)


def _label(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]]) -> None:
    """Place each label beside its marker, with the least overlap with markers, labels and lines."""
    figure.canvas.draw()
    taken = [_box(axes.transData.transform((x, y)), 6) for x, y, _ in labels]
    lines = [
        _box(corner, 1)
        for line in axes.lines
        for corner in axes.transData.transform(line.get_path().interpolated(24).vertices)
    ]
    for x, y, text in labels:
        placed = [_annotate(axes, x, y, text, offset) for offset in OFFSETS]
        boxes = [annotation.get_window_extent() for annotation in placed]
        cost = [100 * box.count_overlaps(taken) + box.count_overlaps(lines) for box in boxes]
        best = cost.index(min(cost))
        taken.append(boxes[best])
        for i, annotation in enumerate(placed):
            if i != best:
                annotation.remove()


def _box(centre: Iterable[float], half: float) -> Bbox:
    x, y = centre
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _annotate(axes: Axes, x: float, y: float, text: str, offset: tuple[int, int]) -> Annotation:
    side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    return axes.annotate(
        plain(text), (x, y), offset, ha=side, textcoords="offset points", fontsize=8, color="#404040"
    )
