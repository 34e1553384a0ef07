"""What several stages read: the model, text, means, and a task's pairs, as the run's config asks for them."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sparsity_lab.circuits.ablation import mean_activations
from sparsity_lab.config import RunConfig
from sparsity_lab.data.packed import fixed_windows, open_tokens
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs
from sparsity_lab.tasks.python import TASKS
from sparsity_lab.tasks.task import Pair, Split, make_pairs

TOKENIZER = "tokenizer.json"  # in the folder of tokens


def validation_windows(config: RunConfig, tokens: Path) -> list[Tensor]:
    """The fixed validation windows, int64 (b, n_ctx + 1) each."""
    stream = open_tokens(tokens, "validation").tokens
    windows_wc = fixed_windows(stream, config.model.n_ctx, config.trainer.validation_windows)
    return list(windows_wc.split(config.trainer.batch_size))


def text_windows(config: RunConfig, tokens: Path) -> list[Tensor]:
    """The same as text alone, without the last token, which is only a target: (b, n_ctx) each."""
    return [windows_bc[:, :-1] for windows_bc in validation_windows(config, tokens)]


class ModelOnText(NamedTuple):
    """A model, its tokenizer, validation text, and the nodes' means over it (n)."""

    model: Transformer
    tokenizer: Tokenizer
    text: list[Tensor]
    means_n: Tensor


@lru_cache(maxsize=1)  # a run's stages ask for the same one after another
def model_on_text(config: RunConfig, tokens: Path, model_folder: Path) -> ModelOnText:
    """What every stage that looks at a model's circuits starts from; nobody changes it."""
    model, text = load_model(model_folder), text_windows(config, tokens)
    return ModelOnText(model, load_tokenizer(tokens / TOKENIZER), text, mean_activations(model, text))


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
