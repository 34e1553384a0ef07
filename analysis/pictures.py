"""Draw and save the frontier's figures. Text from records is drawn literally (S12).

A figure has a panel for each measure of size that all drawn models have. Bars span the seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from analysis.frontier import CurveRow, baselines, lower_envelope, measured, spread
from analysis.labels import label_points
from analysis.models import MEASURES, Configuration, Target
from sparsity_lab.results.drawing import Axes, Figure, Line2D, mpl
from sparsity_lab.results.style import GREY, KINDS, STYLE, log_axis, plain, short

BASELINE = "#8C564B"
Point = tuple[float, float]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as PNG (200 dpi) and SVG, reproducibly to the byte; return the files."""
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with mpl.rc_context(STYLE):
        figure.savefig(files[0], dpi=200, metadata={"Software": None})
        figure.savefig(files[1], metadata={"Date": None})
    return files


def draw_frontier(
    compared: Sequence[Configuration], tasks: Sequence[str], target: Target, left_out: int = 0
) -> Figure:
    """(a) Pretraining loss against geometric-mean size over `tasks`, one marker per configuration.

    `left_out` configurations are not drawn; the legend says so.
    """
    with mpl.rc_context(STYLE):
        measures = measured(compared, tasks)
        figure = Figure(figsize=(3.0 + 5.0 * len(measures), 5.0))
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        widths = sorted({one.first.d_model for one in compared})
        colours = {width: _colour(i, len(widths)) for i, width in enumerate(widths)}
        outside: list[str] = []
        for axes, measure in zip(panels, measures, strict=True):
            outside = _frontier_panel(axes, compared, tasks, measure, colours)
            axes.set_xlabel(MEASURES[measure].capitalize())
        over = f"geometric mean of {_count(tasks)}, target {target}"
        figure.suptitle(f"Capability against circuit size (lower left is better; {over})", fontsize=11)
        panels[0].set_ylabel("Pretraining loss on validation text (nats per token)")
        handles = [
            Line2D([], [], color=colours[width], marker="o", linestyle="", label=f"d_model {width}")
            for width in widths
        ]
        for kind in (kind for kind in KINDS if any(one.first.kind == kind for one in compared)):
            label = "dense, lower envelope" if kind == "dense" else f"{kind}, same method and width"
            handle = Line2D([], [], color=GREY, marker=KINDS[kind][1], label=label)
            handle.set_linestyle("--" if kind == "dense" else "-")
            handles.append(handle)
        notes = ["labels: nonzero weights"]
        if any(one.first.kind != "dense" for one in compared):
            handles.append(Line2D([], [], color="#B0B0B0", linestyle=":", label="same method and nonzeros"))
        if any(one.seeds > 1 for one in compared):
            notes.append("bars: smallest to largest seed")
        if left_out:
            notes.append(f"not drawn: {left_out} with few circuits")
        handles += [Line2D([], [], linestyle="", label=text) for text in (*notes, *outside)]
        figure.legend(handles=handles, loc="outside right upper")
        for axes, measure in zip(panels, measures, strict=True):
            points = [_point(one, tasks, measure) for one in compared]
            texts = [_named(one) for one in compared]
            label_points(figure, axes, [(*at, text) for at, text in zip(points, texts, strict=True)])
        return figure


def _method(one: Configuration) -> tuple[str, str | None]:
    return one.first.kind, one.first.sparsity


def _named(one: Configuration) -> str:
    """Return the number of nonzeros, and the method if it is another than the paper's."""
    usual = one.first.kind == "dense" or one.first.sparsity == "magnitude"
    return short(one.first.nonzeros) if usual else f"{short(one.first.nonzeros)} {one.first.sparsity}"


def _point(one: Configuration, tasks: Sequence[str], measure: str) -> Point:
    return spread(one, tasks, measure)[0], one.loss


def _frontier_panel(
    axes: Axes,
    compared: Sequence[Configuration],
    tasks: Sequence[str],
    measure: str,
    colours: dict[int, Any],
) -> list[str]:
    """Draw one measure; return the n-gram losses that are too far away to be drawn, in words."""
    points = {one.name: _point(one, tasks, measure) for one in compared}
    dense = [one for one in compared if one.first.kind == "dense"]
    sparse = [one for one in compared if one.first.kind != "dense"]
    for group in _groups(sparse, lambda one: (*_method(one), one.first.d_model)):
        ordered = sorted(group, key=lambda one: one.first.nonzeros)
        _line(axes, points, ordered, color=colours[group[0].first.d_model], linewidth=1.6)
    for group in _groups(sparse, lambda one: (*_method(one), f"{one.first.nonzeros:.1e}")):
        ordered = sorted(group, key=lambda one: one.first.d_model)
        _line(axes, points, ordered, color="#B0B0B0", linewidth=1.0, linestyle=":")
    envelope = [dense[index] for index in lower_envelope([points[one.name] for one in dense])]
    _line(axes, points, envelope, color=GREY, linewidth=1.2, linestyle="--")
    for one in compared:
        _, *ends = spread(one, tasks, measure)
        losses = [model.loss for model in one.models]
        _bars(axes, points[one.name], ends, [min(losses), max(losses)], colours[one.first.d_model])
        style: Any = {"color": colours[one.first.d_model], "markersize": 7, "markeredgecolor": "white"}
        axes.plot(*points[one.name], KINDS[one.first.kind][1], **style)
    log_axis(axes, "x")
    axes.margins(0.12)
    return _baselines(axes, compared)


def _bars(axes: Axes, at: Point, x_ends: Sequence[float], y_ends: Sequence[float], colour: Any) -> None:
    """Draw bars from a point to the smallest and the largest seed."""
    axes.errorbar(
        *at,
        xerr=[[max(0.0, at[0] - x_ends[0])], [max(0.0, x_ends[1] - at[0])]],
        yerr=[[max(0.0, at[1] - y_ends[0])], [max(0.0, y_ends[1] - at[1])]],
        color=colour,
        linewidth=1.0,
        capsize=2,
        zorder=1.5,
    )


def _baselines(axes: Axes, compared: Sequence[Configuration]) -> list[str]:
    """Draw n-gram losses near the models' as lines; return those too far to be drawn, in words.

    A band instead of a line shows n-gram models of different numbers of tokens.
    """
    models = [model for one in compared for model in one.models]
    losses = [model.loss for model in models]
    reach = max(0.5 * (max(losses) - min(losses)), 0.1)  # of more, the models' own differences would be small
    left, right = axes.get_xlim()
    outside = []
    for n, (low, high) in baselines(models).items():
        if low > max(losses) + reach or high < min(losses) - reach:
            outside.append(f"{n}-gram: {low:.2f}" + (f" to {high:.2f}" if high - low > 0.005 else ""))
            continue
        if high > low:
            axes.axhspan(low, high, color=BASELINE, alpha=0.15, linewidth=0, zorder=0)
        axes.plot([left, right], [low, low], color=BASELINE, linewidth=1.0, linestyle="-.", zorder=0)
        style: Any = {"ha": "right", "textcoords": "offset points", "fontsize": 8, "color": BASELINE}
        axes.annotate(f"{n}-gram", (right, low), (-4, 3), **style)
    axes.set_xlim(left, right)
    return outside


def draw_target_curve(rows: Sequence[CurveRow], dense: Configuration, sparse: Configuration) -> Figure:
    """(b) Geometric-mean sizes against the target for two models of matched pretraining loss."""
    with mpl.rc_context(STYLE):
        measures = [name for name in MEASURES if any(row.measure == name for row in rows)]
        figure = Figure(figsize=(1.6 + 4.8 * len(measures), 4.6))
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            for kind in ("absolute", "relative"):
                some = [row for row in rows if (row.measure, row.target_kind) == (measure, kind)]
                _curve(axes, some, dense, sparse, kind)
            x = sorted({row.target for row in rows})
            log_axis(axes, "x")
            if len(x) <= 8:
                axes.set_xticks(x)
            log_axis(axes, "y")
            axes.margins(y=0.15)
            axes.set_xlabel("Target task loss (nats)")
            axes.set_ylabel(MEASURES[measure].capitalize())
        counts = sorted({row.tasks for row in rows})
        few, most = counts[0], counts[-1]
        over = f"{few} task{'s' * (few != 1)}" if few == most else f"{few} to {most} tasks, as shared"
        hollow = any(row.target_kind == "relative" for row in rows)
        more = "; hollow: target above the whole model's loss" if hollow else ""
        figure.suptitle(f"Circuit size against target loss (geometric mean of {over}{more})", fontsize=11)
        figure.legend(handles=_pair_handles(dense, sparse, "-"), loc="outside lower center", ncols=1)
        return figure


def _curve(
    axes: Axes, rows: Sequence[CurveRow], dense: Configuration, sparse: Configuration, kind: str
) -> None:
    """Draw the sizes at the targets of one kind; markers of relative targets are hollow."""
    style: Any = {"linestyle": "-"} if kind == "absolute" else {"linestyle": ":", "markerfacecolor": "white"}
    for one, sizes in ((dense, [row.dense for row in rows]), (sparse, [row.sparse for row in rows])):
        colour, marker = KINDS[one.first.kind]
        x = [row.target for row in rows]
        y = [size for size, _, _ in sizes]
        bars = [[size - low for size, low, _ in sizes], [high - size for size, _, high in sizes]]
        axes.errorbar(x, y, yerr=bars, marker=marker, color=colour, linewidth=1.8, capsize=2, **style)
    if len({row.tasks for row in rows}) > 1:
        for row in rows:
            at = row.target, max(row.dense[2], row.sparse[2])
            style_of: Any = {"ha": "center", "textcoords": "offset points", "fontsize": 8, "color": "#606060"}
            axes.annotate(str(row.tasks), at, (0, 8), **style_of)


def draw_tasks(dense: Configuration, sparse: Configuration, target: Target) -> Figure:
    """(c) Sizes of each task's circuit in the two models of matched loss, by the ratio of edges."""
    pair = (dense, sparse)
    both = sorted(dense.tasks & sparse.tasks)
    edges = {task: [spread(one, [task], "edges")[0] for one in pair] for task in both}
    tasks = sorted(edges, key=lambda task: edges[task][0] / edges[task][1])
    with mpl.rc_context(STYLE):
        measures = measured([dense, sparse], tasks)
        figure = Figure(figsize=(2.4 + 4.0 * len(measures), 1.9 + 0.27 * len(tasks)))
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            for y, task in enumerate(tasks):
                ends = [spread(one, [task], measure)[0] for one in (sparse, dense)]
                axes.plot(ends, [y, y], color="#C8C8C8", linewidth=2, zorder=1)
            for one in (dense, sparse):
                colour, marker = KINDS[one.first.kind]
                for y, task in enumerate(tasks):
                    size, *ends = spread(one, [task], measure)
                    _bars(axes, (size, y), ends, [y, y], colour)
                    axes.plot(size, y, marker, color=colour, zorder=2)
            log_axis(axes, "x")
            axes.set_xlabel(MEASURES[measure].capitalize())
        panels[0].set_yticks(range(len(tasks)), [plain(task) for task in tasks])
        panels[0].set_ylim(-0.7, len(tasks) - 0.3)
        figure.suptitle(f"Circuit size, task by task ({_count(tasks)}, target {target})", fontsize=11)
        figure.legend(handles=_pair_handles(dense, sparse, ""), loc="outside lower center", ncols=1)
        return figure


def _pair_handles(dense: Configuration, sparse: Configuration, line: Literal["-", ""]) -> list[Line2D]:
    styles = [(KINDS[one.first.kind], describe(one)) for one in (dense, sparse)]
    return [
        Line2D([], [], linestyle=line, color=colour, marker=marker, label=label)
        for (colour, marker), label in styles
    ]


def describe(one: Configuration) -> str:
    """Describe a configuration in a legend."""
    model = one.first
    seeds = f", {one.seeds} seeds" if one.seeds > 1 else ""
    return plain(
        f"{model.kind}, d_model {model.d_model}, {short(model.nonzeros)} nonzeros, loss {one.loss:.3f}{seeds}"
    )


def _count(tasks: Sequence[str]) -> str:
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"


def _colour(index: int, count: int) -> tuple[float, float, float, float]:
    return mpl.colormaps["viridis"](0.85 * index / max(count - 1, 1))


def _groups(
    compared: Iterable[Configuration], key: Callable[[Configuration], object]
) -> list[list[Configuration]]:
    groups: dict[object, list[Configuration]] = {}
    for one in compared:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def _line(axes: Axes, points: dict[str, Point], ordered: Sequence[Configuration], **style: Any) -> None:
    line = [points[one.name] for one in ordered]
    axes.plot([x for x, _ in line], [y for _, y in line], zorder=1, **style)
