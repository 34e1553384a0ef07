"""Sparsity method `file`: a method in the user's own Python file, outside the package.

    python -m sparsity_lab.run sparsity=file sparsity.path=my_method.py 'sparsity.options={share: 0.1}'

The file has the same structure as the other modules here. It defines `Config`, a subclass of
`SparsifierConfig` whose fields are set by the options, and `make(config, model, n_steps, seed)`, which
returns a `Sparsifier`.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.extension import load_file, unchanged, with_content
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.paths import UserPath
from sparsity_lab.training.sparsity.sparsifier import Part, Sparsifier, SparsifierConfig

if TYPE_CHECKING:
    from sparsity_lab.model.transformer import Transformer

KEY = "sparsity.path"


class Config(SparsifierConfig):
    """The `path` of the file, and `options` for the file's own `Config`; null gives none.

    `sha256`, of the file's content, is filled in.
    """

    kind: Literal["file"] = "file"
    path: UserPath
    options: dict[str, Any] | None = None  # {} could not be set on Hydra's command line
    sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_content(cls, values: Any) -> Any:
        return with_content(values, "sparsity")

    @model_validator(mode="after")
    def _options_fit(self) -> Config:
        self.method()
        return self

    def __hash__(self) -> int:  # the options are a dict, which has none
        return hash(self.model_dump_json())

    def module(self) -> ModuleType:
        """Import the file as a module.

        Raises:
            UserError: the file cannot be imported, or lacks `Config` or `make`.
        """
        module = load_file(unchanged(self.path, self.sha256, KEY), KEY)
        method = getattr(module, "Config", None)
        if not (isinstance(method, type) and issubclass(method, SparsifierConfig)):
            raise UserError(f"{KEY}: {self.path}: must define Config, a subclass of SparsifierConfig")
        if not callable(getattr(module, "make", None)):
            raise UserError(f"{KEY}: {self.path}: must define make(config, model, n_steps, seed)")
        return module

    def method(self) -> SparsifierConfig:
        """Build the file's own `Config` from the options.

        Raises:
            UserError: the options do not fit it; the message has one line per wrong key.
        """
        found: SparsifierConfig = validate(self.module().Config, self.options or {}, "sparsity.options")
        return found

    @property
    def is_sparse(self) -> bool:
        return self.method().is_sparse

    @property
    def label(self) -> str:
        """The file's name and the label of its `Config`, restricted to characters safe in folder names."""
        return re.sub(r"[^\w.+-]", "_", f"{Path(self.path).stem}-{self.method().label}".rstrip("-"))

    def identity(self) -> dict[str, Any]:
        """Return the file's content hash and options; its location does not matter."""
        return {
            "kind": self.kind,
            "sha256": self.sha256,
            "options": self.method().identity(),
        }

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.method().parts

    def check_size(self, weights: int) -> None:
        self.method().check_size(weights)


def make(config: Config, model: Transformer, n_steps: int, seed: int) -> Sparsifier:
    """The file's sparsifier.

    Raises:
        UserError: `make` fails, or returns something without `kept_fraction` above 0 or without `after_step`.
    """
    where = f"{KEY}: {config.path}: make"
    with foreign(where):
        made: Sparsifier = config.module().make(config.method(), model, n_steps, seed)
        if not callable(getattr(made, "after_step", None)) or not 0 < made.kept_fraction(0) <= 1:
            raise UserError(f"{where}: must return an object with after_step, and kept_fraction above 0")
    return made
