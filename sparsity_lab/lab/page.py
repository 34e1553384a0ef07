"""A circuit's page in a notebook, or as a file."""

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from sparsity_lab.core.files import write_text
from sparsity_lab.viewer.page import View, figure, page

HEIGHT = 760  # pixels of the frame in a notebook


@dataclass(frozen=True, repr=False)
class Page:
    """One circuit's page: a self-contained HTML document, and the same circuit as a figure."""

    view: View
    title: str

    @cached_property
    def html(self) -> str:
        """The page as one HTML document."""
        return page(self.view)

    @cached_property
    def svg(self) -> str:
        """The circuit's graph alone, as an SVG figure. It needs the extra `figures`.

        Raises:
            UserError: dukpy is not installed, or the circuit is too large to draw.
        """
        return figure(self.view)

    def save(self, path: str | Path) -> Path:
        """Write the page as one HTML file, and return its path."""
        write_text(Path(path).expanduser(), self.html)
        return Path(path)

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html)}" title="{escape(self.title)}" '
            f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"{self.title}: in a notebook the page is shown; .save(path) writes it"
