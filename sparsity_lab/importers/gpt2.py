"""Import a GPT-2 style language model from a local `transformers` folder; needs the extra [transformers].

GPT-2 is a `Transformer` with LayerNorm, learned positions and tied embeddings, except that its Conv1D
matrices are transposed.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.importers.released import build_model, is_causal
from sparsity_lab.importers.saved_by_transformers import (
    ACTIVATIONS,
    read_their_config,
    read_their_tensors,
    require_supported,
    with_tied,
)
from sparsity_lab.model.checkpoints import require_layers
from sparsity_lab.model.transformer import ModelConfig, Transformer

# buffers that old versions of transformers saved: the causal mask, and the number that it puts in
MASK = re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias")
ONLY = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}


def read_gpt2(folder: Path) -> Transformer:
    """Read the model from a folder that `save_pretrained` wrote, in evaluation mode, as float32.

    Raises:
        UserError: `transformers` is not installed, the folder does not contain a complete GPT-2 or contains
            further tensors, a number is not finite, or the config uses a feature that `Transformer` lacks.
    """
    config, ours = read_their_config(folder, ("gpt2",), our_config)
    theirs = _with_prefix(read_their_tensors(folder), folder)
    require_layers(ours, theirs, folder)
    for name, tensor in theirs.items():
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) and tensor.dim() == 2:
            theirs[name] = tensor.T
    if ours.tied_embeddings:
        theirs = with_tied(theirs, "lm_head.weight", "transformer.wte.weight")
    if "lm_head.weight" in theirs:
        theirs["final_logits_bias"] = torch.zeros(theirs["lm_head.weight"].shape[:1])
    return build_model(ours, config.vocab_size, theirs, folder)


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


def our_config(config: Any, folder: Path) -> ModelConfig:
    """Convert a `GPT2Config` to our config.

    Raises:
        UserError: as `read_gpt2`.
    """
    require_supported(config, folder, "activation_function", "n_layer", ONLY)
    ours = {
        "n_layer": config.n_layer,
        "d_model": config.n_embd,
        "n_ctx": config.n_positions,
        "d_head": config.n_embd // config.n_head,
        "n_head": config.n_head,
        "d_mlp": config.n_inner,
        "activation": ACTIVATIONS[config.activation_function],
        "attention_sink": False,
        "bigram": "none",
        "positions": "learned",
        "norm": "layer",
        "norm_eps": config.layer_norm_epsilon,
        "tied_embeddings": bool(config.tie_word_embeddings),
    }
    return validate(ModelConfig, ours, f"{folder} as our config")
