"""Imported models, which are used as they are instead of trained: released, GPT-2, Llama-like."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from sparsity_lab.core.config import Config
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath

if TYPE_CHECKING:
    from sparsity_lab.model.transformer import Transformer

SUFFIXES = (".json", ".pt", ".safetensors", ".bin")


class ImportedConfig(Config):
    """A model in a folder.

    `kind`: "released" is read by `released.py`, "gpt2" by `gpt2.py`, "llama" by `llama.py`.
    `n_ctx`: length, in tokens, of the corpus windows over which the loss and the nodes' means are taken.
    """

    kind: Literal["released", "gpt2", "llama"]
    path: UserPath
    n_ctx: PositiveInt = 128

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file that a model may be read from, by name.

        Raises:
            UserError: there is no such folder.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            raise UserError(f"model.path: {self.path}: no such folder")
        digests = {}
        for path in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests

    def read(self) -> "Transformer":
        """Read the model, in evaluation mode.

        Raises:
            UserError: the model cannot be read, or its context is shorter than `n_ctx`.
        """
        from sparsity_lab.importers.gpt2 import read_gpt2  # here, because it imports torch
        from sparsity_lab.importers.llama import read_llama
        from sparsity_lab.importers.released import read_released

        readers = {"released": read_released, "gpt2": read_gpt2, "llama": read_llama}
        model = readers[self.kind](Path(self.path))
        if model.config.n_ctx < self.n_ctx:
            raise UserError(f"model.n_ctx: {self.n_ctx}: the model's context is {model.config.n_ctx}")
        return model
