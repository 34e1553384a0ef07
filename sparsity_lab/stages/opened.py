"""Open a model by a path of any kind, with what lies beside it.

| folder | has |
|---|---|
| a run | model, tokenizer, record, config, circuits, and the text that means are computed from |
| an export | model, tokenizer, means, circuits; with `--text`, the text too |
| a model's folder (`runs/models/NAME`) | model |
| a model of openai/circuit_sparsity (`beeg_config.json`, `final_model.pt`) | model, often a tokenizer |
| a GPT-2 or a Llama-like model that `transformers` saved (`config.json`) | model, often a tokenizer |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.circuits.standalone import MEANS, TEXT, load_means, load_text
from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.processors import processors
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.data.tokenizer_folder import read_folder, tokenizer_files
from sparsity_lab.importers.gpt2 import read_gpt2
from sparsity_lab.importers.llama import TYPES as LLAMA_LIKE
from sparsity_lab.importers.llama import read_llama
from sparsity_lab.importers.released import CONFIG as RELEASED
from sparsity_lab.importers.released import read_released
from sparsity_lab.kernels.install import Switch
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.stages.context import ModelContext, model_hash

PLAIN, TRANSFORMERS = "model.json", "config.json"


@dataclass(frozen=True)
class Folder:
    """The parts of an opened folder.

    `model_hash` is the hash that circuits name, for models of this project. `record`, `config` and `context`
    are None unless the folder is a run's.
    """

    path: Path
    model: Transformer
    model_hash: str | None = None
    run: RunFolder | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None if the folder has none.

        Raises:
            UserError: its files are damaged or cannot be read exactly.
        """
        folder = self.path if self.run is None else self.run.tokens
        try:
            tokenizer_files(folder)
        except UserError:
            return None
        return read_folder(folder)

    @cached_property
    def record(self) -> RunRecord | None:
        """The record of a finished run.

        Raises:
            UserError: it is unreadable.
        """
        return read_record(self.path) if self.run is not None and self.run.record.exists() else None

    @cached_property
    def config(self) -> RunConfig | None:
        """The config of a finished run.

        Raises:
            UserError: it is that of an older version.
        """
        if self.record is None:
            return None
        if renamed := renamed_in_config(self.record.config):
            raise UserError(f"{self.path}: a run of an older version: " + "; ".join(renamed))
        return validate(RunConfig, self.record.config, str(self.path))

    @property
    def threads_and_kernels(self) -> tuple[int | None, Switch]:
        """The run's own `threads`, at most as many as this machine has, and `kernels`; else the defaults.

        Raises:
            UserError: the record is unreadable.
        """
        config = {} if self.record is None else self.record.config
        threads = config.get("threads")
        kernels: Switch = "off" if config.get("kernels") == "off" else "on"
        return (min(threads, processors()) if isinstance(threads, int) else None), kernels

    @cached_property
    def context(self) -> ModelContext | None:
        """The model of a finished run with its validation text."""
        if self.config is None or self.run is None:
            return None
        return ModelContext.of(self.config, self.run.tokens, self.run.model, self.path)

    @property
    def has_means(self) -> bool:
        """Whether `means_n` can be read or computed."""
        return (self.path / MEANS).exists() or self.has_text

    @property
    def has_text(self) -> bool:
        """Whether `text` can be read."""
        return (self.path / TEXT).exists() or self.context is not None

    @cached_property
    def means_n(self) -> Tensor:
        """Mean of every node over validation text (n), from a file beside the model or computed here.

        Raises:
            UserError: the folder has neither means nor text.
        """
        if (self.path / MEANS).exists():
            return load_means(self.path / MEANS, self.model.config)
        if not self.has_text:
            raise UserError(f"{self.path}: no means; load the run's folder or an export instead")
        return mean_activations(self.model, self.text)

    @cached_property
    def text(self) -> Sequence[Tensor]:
        """Windows of validation text, (b, n_ctx) each, from a file beside the model or the run's tokens.

        Raises:
            UserError: the folder has no text, or its file is damaged.
        """
        if (self.path / TEXT).exists():
            windows_wt = load_text(self.path / TEXT, self.model.vocab_size)
            if windows_wt.shape[1] > self.model.config.n_ctx:
                raise UserError(f"{self.path / TEXT}: windows longer than n_ctx {self.model.config.n_ctx}")
            return [windows_wt]
        if self.context is None:
            raise UserError(f"{self.path}: no text; load the run's folder, or an export made with --text")
        return self.context.text


def open_folder(path: Path) -> Folder:
    """Open a folder with a model, which is in evaluation mode.

    Raises:
        UserError: there is no model in the folder, or it cannot be read.
    """
    run = RunFolder(path)
    if (run.model / PLAIN).exists():
        return Folder(path, load_model(run.model), model_hash(run.model), run)
    if (path / PLAIN).exists():
        return Folder(path, load_model(path), model_hash(path))
    if (path / RELEASED).exists():
        return Folder(path, read_released(path))
    if (path / TRANSFORMERS).exists():
        return Folder(path, _read_saved(path))
    files = f"{PLAIN}, {RELEASED} nor {TRANSFORMERS}"
    what = f"no model: it has neither model/{PLAIN}, {files}" if path.is_dir() else "no such folder"
    raise UserError(f"{path}: {what}; allowed: a run's folder, an export, a model's folder")


def _read_saved(path: Path) -> Transformer:
    """Read a model that `transformers` saved, by its model type."""
    card = read_json(path / TRANSFORMERS)
    found = card.get("model_type") if isinstance(card, dict) else None
    if found in LLAMA_LIKE:
        return read_llama(path)
    if found == "gpt2":
        return read_gpt2(path)
    allowed = ", ".join(map(repr, ("gpt2", *LLAMA_LIKE)))
    raise UserError(f"{path / TRANSFORMERS}: model_type: {found!r}: allowed: {allowed}")


def require_same_model(folder: Folder, wanted: str | None, circuit: Path) -> None:
    """Check that a circuit was found in the model of `folder`, as far as both have a hash.

    Raises:
        UserError: it was found in another model.
    """
    if None not in (wanted, folder.model_hash) and wanted != folder.model_hash:
        raise UserError(
            f"{circuit}: model_hash: {wanted}: {folder.path} has {folder.model_hash}; "
            "allowed: the model in which the circuit was found, or --other-model"
        )
