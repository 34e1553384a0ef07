"""Import a GPT-2 style language model from a local `transformers` folder; needs the extra [transformers].

GPT-2 is a `Transformer` with LayerNorm, learned positions and tied embeddings, except that its Conv1D
matrices are transposed. The `transformers` library reads the config. The tensors are read here, since the
library loads an incomplete file without an error. Nothing is downloaded.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.foreign import foreign
from sparsity_lab.importers.released import build_model, is_causal, load_tensors
from sparsity_lab.model.checkpoints import read_safetensors, require_layers
from sparsity_lab.model.transformer import ModelConfig, Transformer

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
MOST_LAYERS = 1000
# buffers that old versions of transformers saved: the causal mask, and the number that it puts in
MASK = re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias")
SAFETENSORS, TORCH, EMBEDDING = "model.safetensors", "pytorch_model.bin", "transformer.wte.weight"
ONLY = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}


def read_gpt2(folder: Path) -> Transformer:
    """Read the model from a folder that `save_pretrained` wrote, in evaluation mode, as float32.

    Raises:
        UserError: `transformers` is not installed, the folder does not contain a complete GPT-2 or contains
            further tensors, a number is not finite, or the config uses a feature that `Transformer` lacks.
    """
    try:
        from transformers import AutoConfig
    except ImportError:
        raise UserError("reading a GPT-2 needs the extra [transformers]: pip install transformers") from None
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json, so not a folder of a transformers model")
    with _quiet(), foreign(f"{folder}: not readable by transformers"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "gpt2":
            raise UserError(f"{folder}: model_type: {config.model_type!r}: allowed: 'gpt2'")
        ours = our_config(config, folder)
    theirs = _with_prefix(_tensors(folder), folder)
    require_layers(ours, theirs, folder)
    for name, tensor in theirs.items():
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) and tensor.dim() == 2:
            theirs[name] = tensor.T
    if ours.tied_embeddings:  # either name may stand for both
        for name, other in (("lm_head.weight", EMBEDDING), (EMBEDDING, "lm_head.weight")):
            if other in theirs:
                theirs.setdefault(name, theirs[other])
    if "lm_head.weight" in theirs:
        theirs["final_logits_bias"] = torch.zeros(theirs["lm_head.weight"].shape[:1])
    return build_model(ours, config.vocab_size, theirs, folder)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of one file, or of all files that an index lists."""
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


def _with_prefix(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Name all tensors as a model with a head does, and leave out causal masks, which are no parameters."""
    named = {}
    for name, tensor in tensors.items():
        full = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        if mask := MASK.fullmatch(full):
            if not mask[1] and not is_causal(tensor):
                raise UserError(f"{folder}: {full}: not a causal mask")
            continue
        named[full] = tensor
    return named


@contextmanager
def _quiet() -> Iterator[None]:
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


def our_config(config: Any, folder: Path) -> ModelConfig:
    """Convert a `GPT2Config` to our config.

    Raises:
        UserError: as `read_gpt2`.
    """
    if (activation := config.activation_function) not in ACTIVATIONS:
        allowed = ", ".join(ACTIVATIONS)
        raise UserError(f"{folder}: activation_function: {activation!r}: allowed: {allowed}")
    if not 0 < config.n_layer <= MOST_LAYERS:  # before the library tries to build them
        raise UserError(f"{folder}: n_layer: {config.n_layer}: allowed: 1 to {MOST_LAYERS}")
    for name, supported in ONLY.items():
        if (found := getattr(config, name)) is not supported:
            raise UserError(f"{folder}: {name}: {found}: allowed: {supported}")
    ours = {
        "n_layer": config.n_layer,
        "d_model": config.n_embd,
        "n_ctx": config.n_positions,
        "d_head": config.n_embd // config.n_head,
        "n_head": config.n_head,
        "d_mlp": config.n_inner,
        "activation": ACTIVATIONS[activation],
        "attention_sink": False,
        "bigram": "none",
        "positions": "learned",
        "norm": "layer",
        "norm_eps": config.layer_norm_epsilon,
        "tied_embeddings": bool(config.tie_word_embeddings),
    }
    return validate(ModelConfig, ours, f"{folder} as our config")
