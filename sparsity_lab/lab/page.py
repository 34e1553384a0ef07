"""A circuit's page in a notebook, or as a file."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from sparsity_lab.core.files import write_text

HEIGHT = 760  # pixels of the frame in a notebook


@dataclass(frozen=True, repr=False)
class Page:
    """One circuit's page: a self-contained HTML document."""

    html: str
    title: str

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
