"""Read a folder that `save_pretrained` of `transformers` wrote; needs the extra [transformers].

The library reads config.json, because it knows the defaults of every version. The tensors are read here,
since the library loads an incomplete file without an error. Nothing is downloaded.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.foreign import foreign
from sparsity_lab.importers.released import load_tensors
from sparsity_lab.model.checkpoints import read_safetensors
from sparsity_lab.model.config import ModelConfig

CONFIG, SAFETENSORS, TORCH = "config.json", "model.safetensors", "pytorch_model.bin"
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}
MOST_LAYERS = 1000


def read_their_config(
    folder: Path, types: Collection[str], convert: Callable[[Any, Path], ModelConfig]
) -> tuple[Any, ModelConfig]:
    """Read config.json as a config object of the library, of one of the model types, and convert it to ours.

    Raises:
        UserError: `transformers` is not installed, the file is missing or damaged, it is of another model
            type, or `convert` fails.
    """
    try:
        from transformers import AutoConfig
    except ImportError:
        raise UserError(
            "reading a model of transformers needs the extra [transformers]: pip install transformers"
        ) from None
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: no {CONFIG}, so not a folder of a transformers model")
    with quiet(), foreign(f"{folder}: not readable by transformers"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in types:
            allowed = ", ".join(map(repr, types))
            raise UserError(f"{folder}: model_type: {config.model_type!r}: allowed: {allowed}")
        return config, convert(config, folder)


def require_supported(
    config: Any, folder: Path, activation: str, layers: str, only: Mapping[str, object]
) -> None:
    """Check the activation and the number of layers, by their names in `config`, and the values of `only`.

    Raises:
        UserError: a value is not supported.
    """
    if (found := getattr(config, activation)) not in ACTIVATIONS:
        raise UserError(f"{folder}: {activation}: {found!r}: allowed: {', '.join(ACTIVATIONS)}")
    if not 0 < (found := getattr(config, layers)) <= MOST_LAYERS:  # before anything tries to build them
        raise UserError(f"{folder}: {layers}: {found}: allowed: 1 to {MOST_LAYERS}")
    for name, supported in only.items():
        if (found := getattr(config, name, supported)) != supported:
            raise UserError(f"{folder}: {name}: {found}: allowed: {supported}")


def read_their_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of one file, or of all files that an index lists.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    for name, read in ((SAFETENSORS, read_safetensors), (TORCH, load_tensors)):
        if (folder / name).is_file():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            tensors: dict[str, Tensor] = {}
            for file in _listed(index):
                tensors |= read(folder / file)
            return tensors
    raise UserError(f"{folder}: no tensors; allowed: {SAFETENSORS} or {TORCH}, or one of them with an index")


def with_tied(tensors: Mapping[str, Tensor], first: str, second: str) -> dict[str, Tensor]:
    """Return the tensors with both names of a tied one, either of which may stand for both."""
    found = [tensors[name] for name in (second, first) if name in tensors]
    return {**dict.fromkeys((first, second), found[0]), **tensors} if found else dict(tensors)


def _listed(index: Path) -> list[str]:
    """Return the names of the files that hold the tensors."""
    saved = read_json(index)
    places = saved.get("weight_map") if isinstance(saved, dict) else None
    names = (
        set(places.values()) if isinstance(places, dict) and all(map(_is_name, places.values())) else set()
    )
    if not names:
        raise UserError(f"{index}: weight_map: allowed: an object of tensor: file in the same folder")
    return sorted(names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value == Path(value).name and value != ""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's reports off the console; every fault is raised here instead."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
