"""Place the labels of a figure's points where they overlap the least."""

from collections.abc import Iterable, Sequence

from sparsity_lab.results.drawing import Annotation, Axes, Bbox, Figure
from sparsity_lab.results.style import plain

OFFSETS = ((6, 5), (6, -12), (-6, 5), (-6, -12), (0, 9), (0, -17), (14, 0), (-14, 0), (10, 16), (-10, -24))


def label_points(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]]) -> None:
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
