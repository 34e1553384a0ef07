"""What several stages read: validation windows, and a task's pairs, as the run's config asks for them."""

from pathlib import Path

from torch import Tensor

from sparsity_lab.circuits.task import Pair, Split, TaskBatch, encode_pairs, make_pairs
from sparsity_lab.circuits.tasks import TASKS
from sparsity_lab.config import RunConfig
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.data.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"  # in the folder of tokens


def validation_windows(config: RunConfig, tokens: Path) -> list[Tensor]:
    """The fixed validation windows, int64 (b, n_ctx + 1) each."""
    trainer = config.trainer
    data = TokenDataModule(tokens, config.model.n_ctx, trainer.batch_size, 1, 0, trainer.validation_windows)
    return list(data.val_dataloader())


def task_pairs(config: RunConfig, task: str, split: Split) -> list[Pair]:
    """The pairs of one split of a task, as many as the config wants."""
    sizes = config.tasks
    wanted = {"train": sizes.n_train_pairs, "select": sizes.n_select_pairs, "test": sizes.n_test_pairs}
    return make_pairs(TASKS[task], split, wanted[split], sizes.seed)


def task_batch(config: RunConfig, task: str, split: Split, tokenizer: Tokenizer) -> TaskBatch:
    """The same, encoded.

    Raises:
        NotAskable: the tokenizer does not allow it.
    """
    return encode_pairs(TASKS[task], task_pairs(config, task, split), tokenizer)
