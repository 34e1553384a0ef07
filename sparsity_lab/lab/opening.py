"""Open a folder with a model: a run, an export, or a model alone.

| folder | has |
|---|---|
| a run | model, tokenizer, config, circuits, and the tokens that means are computed from |
| an export | model, tokenizer |
| a model's folder (`runs/models/NAME`) | model |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.data.tokenizer_folder import JSON
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.stages.context import ModelContext


@dataclass(frozen=True)
class Folder:
    """The parts of an opened folder; `record`, `config` and `context` are None unless it is a run's."""

    path: Path
    model: Transformer
    tokenizer: Tokenizer | None
    record: RunRecord | None = None
    config: RunConfig | None = None
    context: ModelContext | None = None

    @cached_property
    def means_n(self) -> Tensor:
        """Mean of every node over validation text (n).

        Raises:
            UserError: the folder has no text to compute them from.
        """
        return self._context("means").means_n

    @property
    def text(self) -> Sequence[Tensor]:
        """Windows of validation text, (b, n_ctx) each.

        Raises:
            UserError: the folder has no text.
        """
        return self._context("text").text

    def _context(self, wanted: str) -> ModelContext:
        if self.context is None:
            raise UserError(f"{self.path}: no {wanted}; load the run's folder instead")
        return self.context


def open_folder(path: Path) -> Folder:
    """Open a run's folder, an export or a model's folder.

    Raises:
        UserError: there is no model in the folder, or a file is damaged or of an older version.
    """
    run = RunFolder(path)
    if run.record.exists():
        return _open_run(run)
    if not (path / "model.json").exists():
        what = (
            "no such folder" if not path.is_dir() else "no model: it has neither record.json nor model.json"
        )
        raise UserError(f"{path}: {what}; allowed: a run's folder, an export, a model's folder")
    tokenizer = load_tokenizer(path / JSON) if (path / JSON).exists() else None
    return Folder(path, load_model(path), tokenizer)


def _open_run(run: RunFolder) -> Folder:
    record = read_record(run.path)
    if renamed := renamed_in_config(record.config):
        raise UserError(f"{run.path}: a run of an older version: " + "; ".join(renamed))
    config = validate(RunConfig, record.config, str(run.path))
    context = ModelContext.of(config, run.tokens, run.model, run.path)
    return Folder(run.path, context.model, context.tokenizer, record, config, context)
