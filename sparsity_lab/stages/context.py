"""A model and what its stages look at it with: tokenizer, validation text and the nodes' means over it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.config import RunConfig
from sparsity_lab.core.extension import file_hash
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.stage import content_hash_of
from sparsity_lab.core.waiting import told
from sparsity_lab.data.packed import TOKENIZER, fixed_windows, open_tokens
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.asked import asked_pairs
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs
from sparsity_lab.tasks.task import Split

MODEL_FILES = ("model.json", "model.safetensors")


@dataclass(frozen=True)
class ModelContext:
    """A model in `folder` and the tokens of `tokens`, both below `root`, where stages are kept.

    `n_windows` validation windows of `n_ctx` tokens each, in batches of `batch_size`. Each part is read when
    it is first asked for, and is not to be changed. What is read by then travels to a worker process.
    """

    root: Path
    tokens: Path
    folder: Path
    n_ctx: int
    n_windows: int
    batch_size: int

    @classmethod
    def of(cls, config: RunConfig, tokens: Path, folder: Path, root: Path) -> "ModelContext":
        """The context of a model of the run `config`: the final one, or a snapshot."""
        trainer = config.trainer
        return cls(
            root,
            tokens,
            folder,
            config.model.n_ctx,
            trainer.validation_windows,
            trainer.batch_size,
        )

    @property
    def name(self) -> str:
        """The model's name in circuits: its folder's, and the snapshot's."""
        return "/".join(self.folder.relative_to(self.root).parts[1:])

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """All that a result can depend on, for the hash of a stage: the model and the text by content."""
        return {"model": self.name, "model_hash": model_hash(self.folder)} | self.text_inputs

    @property
    def text_inputs(self) -> dict[str, Any]:
        """The part of `inputs` that is not the model's."""
        return {
            "tokens": content_hash_of(self.tokens),
            "n_ctx": self.n_ctx,
            "validation_windows": self.n_windows,
            "batch_size": self.batch_size,  # means are summed batch by batch
            "kernels": kernels_are_on(),
        }

    @cached_property
    def model(self) -> Transformer:
        """The model, in evaluation mode."""
        return load_model(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the tokens."""
        return load_tokenizer(self.tokens / TOKENIZER)

    @cached_property
    def windows(self) -> list[Tensor]:
        """Validation windows, the targets included: int64 (b, n_ctx + 1) each."""
        return validation_windows(self.tokens, self.n_ctx, self.n_windows, self.batch_size)

    @property
    def text(self) -> list[Tensor]:
        """Validation windows without the last token, which is only a target: (b, n_ctx) each."""
        return [windows_bc[:, :-1] for windows_bc in self.windows]

    @cached_property
    def means_n(self) -> Tensor:
        """Mean of each node over the text (n)."""
        return mean_activations(self.model, self.text)

    def load(self) -> None:
        """Read and compute every part that has not been asked for yet."""
        _ = self.model, self.tokenizer, self.windows, self.means_n


def validation_windows(tokens: Path, n_ctx: int, count: int, batch_size: int) -> list[Tensor]:
    """The fixed validation windows of a folder of tokens, int64 (b, n_ctx + 1) each."""
    windows_wc = fixed_windows(open_tokens(tokens, "validation").tokens, n_ctx, count)
    return list(windows_wc.split(batch_size))


def model_hash(folder: Path, key: str = "model") -> str:
    """Hash of a model's tensors and shape.

    Raises:
        UserError: there is no model in `folder`, which the config's `key` names.
    """
    return content_hash(*[file_hash(folder / name, key) for name in MODEL_FILES])


def task_batch(config: RunConfig, task: str, split: Split, tokenizer: Tokenizer) -> TaskBatch:
    """The pairs of one split of a task, as many as the config wants, encoded.

    Raises:
        NotAskable: the tokenizer does not allow it.
    """
    pairs = asked_pairs(config.tasks, task, split)
    with told(f"task {task}: encoding {len(pairs)} pairs for {split}"):
        return encode_pairs(config.tasks.available()[task], pairs, tokenizer)
