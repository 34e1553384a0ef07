"""The only import of matplotlib. Pictures are drawn without a screen, whatever MPLBACKEND says.

Jupyter and Colab export MPLBACKEND to the commands that they start. Matplotlib refuses to be imported if the
backend that it names is not installed.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# It warns of a home that cannot be written and of fonts that it lacks; no picture here depends on either.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextmanager
def _any_backend() -> Iterator[None]:
    """Hide MPLBACKEND, then let matplotlib use the backend that it names, for a notebook's own plots."""
    wanted = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
            with suppress(ValueError):
                mpl.rcParams["backend"] = wanted


with _any_backend():
    import matplotlib as mpl
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.ticker import Formatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
    from matplotlib.transforms import Bbox

__all__ = [
    "Annotation",
    "Axes",
    "Bbox",
    "Figure",
    "Formatter",
    "FuncFormatter",
    "Line2D",
    "LogLocator",
    "MaxNLocator",
    "NullFormatter",
    "mpl",
    "rc_context",
]
