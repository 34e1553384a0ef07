"""Save and load a model folder: `model.safetensors`, and config and vocabulary size in `model.json`.

Loading is strict: missing, surplus or misshapen tensors are errors.
"""

from pathlib import Path

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_bytes, write_json
from sparsity_lab.model.transformer import ModelConfig, Transformer


class ModelCard(Config):
    """The data needed to rebuild the module that the tensors belong to."""

    config: ModelConfig
    vocab_size: PositiveInt


def save_model(model: Transformer, folder: Path) -> None:
    """Write `model` into `folder`, which is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_tensors(model).items()}
    write_bytes(folder / "model.safetensors", save(tensors))
    write_json(folder / "model.json", ModelCard(config=model.config, vocab_size=model.vocab_size))


def read_card(folder: Path) -> ModelCard:
    """Read the config and vocabulary size of the model in `folder`, without its tensors.

    Raises:
        UserError: the file is missing or damaged.
    """
    return validate(ModelCard, read_json(folder / "model.json"), str(folder / "model.json"))


def load_model(folder: Path) -> Transformer:
    """Read a model, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or the tensors are not those of the config.
    """
    card = read_card(folder)
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None
    if card.config.n_layer > len(tensors):
        raise UserError(f"{path}: {len(tensors)} tensors, too few for {card.config.n_layer} layers")
    try:
        with torch.device("meta"):  # allocate nothing until the tensors are known to fit the card
            model = Transformer(card.config, card.vocab_size)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise UserError(f"{folder / 'model.json'}: no such model can be ({str(error)[:100]})") from None
    expected = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise UserError(f"{path}: tensors differ from model.json: {', '.join(wrong[:5])}")
    model.to_empty(device="cpu").tie()
    own = stored_tensors(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return model.eval().requires_grad_(False)


def stored_tensors(model: Transformer) -> dict[str, Tensor]:
    """Map names to parameters and buffers, each once; tied embeddings appear as `embedding.weight`."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def count_weights(model: Transformer) -> tuple[int, int]:
    """Count the weights that sparsity applies to, and the nonzero ones among them."""
    weights = [weight for weight, _ in model.sparse_weights().values()]
    return sum(w.numel() for w in weights), sum(int(torch.count_nonzero(w)) for w in weights)
