"""The style of every picture: colours, fonts, axes. Text from records is drawn literally (S12)."""

from typing import Any

from sparsity_lab.results.drawing import Axes, Formatter, LogLocator, MaxNLocator, NullFormatter

# Okabe and Ito's colour-blind-safe palette, plus a grey for dense models
GREY, ORANGE, SKY, GREEN, BLUE, VERMILION, PINK = (
    "#555555", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
PALE = "#999999"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION)

# kind of model → colour, marker
KINDS = {
    "dense": (GREY, "s"),
    "sparse": (VERMILION, "o"),
    "sparsified": (BLUE, "D"),
    "bridged": (GREEN, "^"),
}

STYLE: Any = {
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "svg.hashsalt": "sparsity_lab",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}


def plain(text: str) -> str:
    """Replace every unprintable character of `text`."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def short(count: float) -> str:
    """Abbreviate a count: 1234567 → "1.2M", 61234 → "61k", 950 → "950"."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            scaled = count / unit
            return f"{scaled:.1f}".removesuffix(".0") + name if scaled < 10 else f"{scaled:.0f}{name}"
    return f"{count:.3g}"


class _LogTicks(LogLocator):
    """Ticks at 1, 2, 5 × powers of ten, or evenly spaced ones where fewer than two of these are in view."""

    def __init__(self) -> None:
        super().__init__(subs=(1, 2, 5))

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        ticks = super().tick_values(vmin, vmax)
        if sum(low <= tick <= high for tick in ticks) >= 2:
            return ticks
        return MaxNLocator(4).tick_values(low, high)


class _ShortLabels(Formatter):
    """Labels like "20" or "5k", in full where two of these would be the same."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return short(x)

    def format_ticks(self, values: Any) -> list[str]:
        labels = [short(value) for value in values]
        return labels if len(set(labels)) == len(labels) else [f"{value:,.6g}" for value in values]


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with at least two labelled ticks whatever its range."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(_ShortLabels())
    axis.set_minor_formatter(NullFormatter())
