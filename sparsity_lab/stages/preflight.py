"""A check before any work: the sizes of models and tokenizers fit each other."""

from pathlib import Path
from typing import NamedTuple

from sparsity_lab.config import RunConfig
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.data.tokenizers import vocab_size_of
from sparsity_lab.importers.imported import ImportedConfig
from sparsity_lab.importers.released import CONFIG, read_config
from sparsity_lab.model.checkpoints import read_card

CONTEXT = {"gpt2": "n_positions", "llama": "max_position_embeddings"}  # by kind, the key in config.json


class Size(NamedTuple):
    """Vocabulary size and context length of a model; None if its config does not say."""

    vocab_size: int | None
    n_ctx: int | None


def check_inputs(config: RunConfig) -> None:
    """Compare sizes that are known before the corpus is made, from small files only.

    Raises:
        UserError: the tokenizer, a model from elsewhere or the reference model cannot be read, or they do not
            fit each other.
    """
    ours = vocab_size_of(config.tokenizer)
    if isinstance(config.model, ImportedConfig):
        _check_imported(config.model, ours, "model")
    reference = config.reference
    if reference is None:
        return
    if isinstance(reference.model, ImportedConfig):
        size = _check_imported(reference.model, ours, "reference.model")
        _same_vocabulary("reference.model.path", str(reference.model.path), size.vocab_size, ours)
    elif reference.folder is not None:
        card = read_card(Path(reference.folder))
        _same_vocabulary("reference.folder", str(reference.folder), card.vocab_size, ours)


def _check_imported(model: ImportedConfig, ours: int | None, key: str) -> Size:
    folder = Path(model.path)
    size = _released_size(folder) if model.kind == "released" else _saved_size(folder, CONTEXT[model.kind])
    if size.n_ctx is not None and model.n_ctx > size.n_ctx:
        raise UserError(f"{key}.n_ctx: {model.n_ctx}: the model's context is {size.n_ctx}")
    if size.vocab_size is not None and ours is not None and ours > size.vocab_size:
        raise UserError(f"tokenizer: {ours} tokens, but {model.path} knows {size.vocab_size}")
    return size


def _same_vocabulary(key: str, folder: str, theirs: int | None, ours: int | None) -> None:
    if None not in (theirs, ours) and theirs != ours:
        raise UserError(f"{key}: {folder}: a vocabulary of {theirs}; the tokenizer has {ours}")


def _released_size(folder: Path) -> Size:
    config, vocab_size = read_config(folder / CONFIG)
    return Size(vocab_size, config.n_ctx)


def _saved_size(folder: Path, context: str) -> Size:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json, so not a folder of a transformers model")
    card = read_json(folder / "config.json")
    values = [card.get(name) if isinstance(card, dict) else None for name in ("vocab_size", context)]
    return Size(*(value if isinstance(value, int) else None for value in values))
