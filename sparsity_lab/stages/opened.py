"""Open a model by a path of any kind, with what lies beside it: tokenizer, node means, pretraining text.

| folder | made by | has |
|---|---|---|
| a run's folder | `python -m sparsity_lab.run` | model, tokenizer, means and text |
| an export | `python -m sparsity_lab.export` | model, tokenizer, means |
| `model.json`, `model.safetensors` | a stage | the model |
| `beeg_config.json`, `final_model.pt` | openai/circuit_sparsity | the model, often a tokenizer |
| `config.json` | `transformers`, a GPT-2 | the model, often a tokenizer |
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from torch import Tensor

from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.circuits.standalone import MEANS, load_means
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.data.tokenizer_folder import read_folder
from sparsity_lab.importers.gpt2 import read_gpt2
from sparsity_lab.importers.released import CONFIG as RELEASED
from sparsity_lab.importers.released import read_released
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.stages.context import ModelContext, model_hash

PLAIN, TRANSFORMERS = "model.json", "config.json"


@dataclass(frozen=True)
class OpenedModel:
    """A model and the folder it was read from. `hash` is that of circuits' `model_hash`, if it has one."""

    path: Path
    model: Transformer
    hash: str | None
    run: RunFolder | None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            UserError: the folder has none.
        """
        return read_folder(self.path if self.run is None else self.run.tokens)

    @cached_property
    def config(self) -> RunConfig | None:
        """The config of the run's folder; None without one."""
        if self.run is None or not self.run.config.exists():
            return None
        with foreign(f"{self.run.config}: not readable as YAML"):
            plain = yaml.safe_load(self.run.config.read_text(encoding="utf-8"))
        if renamed := renamed_in_config(plain):
            raise UserError(f"{self.run.path}: a run of an older version: " + "; ".join(renamed))
        return validate(RunConfig, plain, str(self.run.config))

    @cached_property
    def record(self) -> RunRecord | None:
        """The run's record; None without one."""
        return read_record(self.run.path) if self.run is not None and self.run.record.exists() else None

    @cached_property
    def context(self) -> ModelContext | None:
        """What the stages of a run look at its model with; None for other folders."""
        if self.run is None or self.config is None:
            return None
        tokens, model = self.run.tokens.resolve(), self.run.model.resolve()
        return ModelContext.of(self.config, tokens, model, model.parent.parent)

    @property
    def text(self) -> list[Tensor]:
        """The windows of pretraining text (b, n_ctx) of a run's folder; empty for other folders."""
        return [] if self.context is None else self.context.text

    @cached_property
    def means_n(self) -> Tensor | None:
        """The means of all nodes (n): from the file beside the model, or over the run's text."""
        if (self.path / MEANS).exists():
            return load_means(self.path / MEANS, self.model.config)
        if not self.text:
            return None
        return mean_activations(self.model, self.text)


def open_model(path: Path) -> OpenedModel:
    """Open the model at `path`, in evaluation mode.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    run = RunFolder(path)
    if (run.model / PLAIN).exists():
        return OpenedModel(path, load_model(run.model), model_hash(run.model), run)
    if (path / PLAIN).exists():
        return OpenedModel(path, load_model(path), model_hash(path), None)
    if (path / RELEASED).exists():
        return OpenedModel(path, read_released(path), None, None)
    if (path / TRANSFORMERS).exists():
        return OpenedModel(path, read_gpt2(path), None, None)
    allowed = ", ".join((PLAIN, RELEASED, TRANSFORMERS))
    raise UserError(f"{path}: holds no model; allowed: a run's folder, or a folder with {allowed}")


def require_same_model(opened: OpenedModel, wanted: str | None, circuit: Path) -> None:
    """Check that a circuit was found in the opened model, as far as both have a hash.

    Raises:
        UserError: it was found in another model.
    """
    if None not in (wanted, opened.hash) and wanted != opened.hash:
        raise UserError(
            f"{circuit}: model_hash: {wanted}: {opened.path} has {opened.hash}; "
            "allowed: the model in which the circuit was found, or --other-model"
        )
