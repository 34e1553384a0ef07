"""Save and load a model folder: `model.safetensors`, and config and vocabulary size in `model.json`.

Loading is strict: missing, surplus or misshapen tensors are errors, and so are numbers that are not finite.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_bytes, write_json
from sparsity_lab.core.shown import printable
from sparsity_lab.model.transformer import ModelConfig, Transformer

CARD = "model.json"


class ModelCard(Config):
    """The data needed to rebuild the module that the tensors belong to."""

    config: ModelConfig
    vocab_size: PositiveInt


def save_model(model: Transformer, folder: Path) -> None:
    """Write `model` into `folder`, which is created if missing; its card is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_tensors(model).items()}
    write_bytes(folder / "model.safetensors", save(tensors))
    write_json(folder / CARD, ModelCard(config=model.config, vocab_size=model.vocab_size))


def read_card(folder: Path) -> ModelCard:
    """Read the config and vocabulary size of the model in `folder`, without its tensors.

    Raises:
        UserError: the file is missing or damaged.
    """
    return validate(ModelCard, read_json(folder / CARD), str(folder / CARD))


def load_model(folder: Path) -> Transformer:
    """Read a model, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, the tensors are not those of the config, or one holds a
            number that is not finite.
    """
    card = read_card(folder)
    path = folder / "model.safetensors"
    tensors = read_safetensors(path)
    require_layers(card.config, tensors, path)
    model = meta_model(card.config, card.vocab_size, folder / "model.json")
    expected = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
    require_tensors(tensors, expected, f"{path}: tensors differ from model.json")
    require_finite(tensors, str(path))
    model.to_empty(device="cpu").tie()
    own = stored_tensors(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return model.eval().requires_grad_(False)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None


def require_layers(config: ModelConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check, before any layer is built, that each layer can have a tensor in the file at `path`.

    Raises:
        UserError: there are fewer tensors than layers.
    """
    if config.n_layer > len(tensors):
        raise UserError(f"{path}: {len(tensors)} tensors, too few for {config.n_layer} layers")


def meta_model(config: ModelConfig, vocab_size: int, path: Path) -> Transformer:
    """Build a model without allocating its tensors, which are not yet known to fit the config at `path`.

    Raises:
        UserError: a size is too large for any tensor.
    """
    try:
        with torch.device("meta"):
            return Transformer(config, vocab_size)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: no such model can be ({printable(str(error)[:100])})") from None


def require_tensors(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare the names and shapes of tensors with the expected ones.

    Raises:
        UserError: a tensor is missing, unknown, of another shape, or not a dense tensor of floats. One line,
            which begins with `where`, names up to five tensors of each kind.
    """
    kinds = {
        "missing": expected.keys() - found.keys(),
        "unknown": found.keys() - expected.keys(),
        "wrong shape": {
            f"{name} {list(found[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in found and tuple(found[name].shape) != shape
        },
        "not dense floats": {
            f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
            for name, tensor in found.items()
            if name in expected and not (tensor.is_floating_point() and tensor.layout is torch.strided)
        },
    }
    if any(kinds.values()):
        raise UserError(f"{where}: {'; '.join(f'{kind}: {_some(k)}' for kind, k in kinds.items() if k)}")


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Check every number of some tensors.

    Raises:
        UserError: a number is NaN or infinite; the line names up to five tensors.
    """
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in tensors.items()}
    if broken := {f"{name} ({count} of {tensors[name].numel()})" for name, count in counts.items() if count}:
        raise UserError(f"{where}: numbers that are not finite: {_some(broken)}")


def _some(names: Collection[str], most: int = 5) -> str:
    shown = ", ".join(map(printable, sorted(names)[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def stored_tensors(model: Transformer) -> dict[str, Tensor]:
    """Map names to parameters and buffers, each once; tied embeddings appear as `embedding.weight`."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def count_weights(model: Transformer) -> tuple[int, int]:
    """Count the weights that sparsity applies to, and the nonzero ones among them."""
    weights = [weight for weight, _ in model.sparse_weights().values()]
    return sum(w.numel() for w in weights), sum(int(torch.count_nonzero(w)) for w in weights)
