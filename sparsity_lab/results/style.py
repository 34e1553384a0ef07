"""The style of every picture: colours, fonts, axes. Text from records is drawn literally (S12)."""

from typing import Any

from sparsity_lab.results.drawing import Axes, FuncFormatter, LogLocator, NullFormatter

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


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with ticks at 1, 2, 5 × powers of ten, labelled like "20" or "5k"."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
