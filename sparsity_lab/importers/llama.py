"""Import a Llama-like language model from a local `transformers` folder; needs the extra [transformers].

Llama, Mistral and Qwen2 are a `Transformer` with RMSNorm, rotary positions and a gated MLP. Three things are
changed on import, none of which changes the logits:

- Grouped-query attention: each query head gets its own copy of its group's keys and values. A node is then
  one channel of one head, as in other models, and a weight that n heads share counts as n edges.
- Biases: if any matrix has a bias, the others get one of zeros.
- Sliding windows: the context is cut to the window, within which attention is ordinary.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.importers.saved_by_transformers import (
    ACTIVATIONS,
    read_their_config,
    read_their_tensors,
    require_supported,
    with_tied,
)
from sparsity_lab.model.checkpoints import (
    meta_model,
    require_finite,
    require_layers,
    require_tensors,
    stored_tensors,
)
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.transformer import Transformer

TYPES = ("llama", "mistral", "qwen2")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OUTSIDE = {"embedding": "model.embed_tokens", "unembedding": "lm_head", "norm": "model.norm"}
INSIDE = {
    "attention.read.norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "mlp.read.norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
SHARED = ("attention.k.", "attention.v.")  # by the query heads of a group
# old versions of transformers saved the frequencies, which follow from the config
FREQUENCIES = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
SCALINGS = ("default", "linear", "llama3")


def read_llama(folder: Path) -> Transformer:
    """Read the model from a folder that `save_pretrained` wrote, in evaluation mode, as float32.

    Raises:
        UserError: `transformers` is not installed, the folder does not contain a complete model of a known
            type or contains further tensors, a number is not finite, or the config uses a feature that
            `Transformer` lacks.
    """
    config, ours = read_their_config(folder, TYPES, our_config)
    saved = read_their_tensors(folder)
    require_layers(ours, saved, folder)
    theirs = {name: tensor for name, tensor in saved.items() if not FREQUENCIES.fullmatch(name)}
    if ours.tied_embeddings:
        theirs = with_tied(theirs, HEAD, EMBEDDING)
    own = meta_model(ours, config.vocab_size, folder).state_dict()
    groups = config.num_attention_heads // config.num_key_value_heads
    names = {name: their_name for name in own if (their_name := _their_name(name, _biased(config)))}
    expected = {
        their_name: (len(own[name]) // (groups if _is_shared(name) else 1), *own[name].shape[1:])
        for name, their_name in names.items()
    }
    require_tensors(theirs, expected, f"{folder}: tensors differ from the config")
    require_finite(theirs, str(folder))
    if ours.tied_embeddings and not torch.equal(theirs[EMBEDDING], theirs[HEAD]):
        raise UserError(f"{folder}: embeddings are tied, but {EMBEDDING} is not {HEAD}")
    model = Transformer(ours, config.vocab_size)
    with torch.no_grad():
        for name, tensor in stored_tensors(model).items():
            if name not in names:
                tensor.zero_()
            elif _is_shared(name):
                tensor.copy_(_copy_to_heads(theirs[names[name]], ours.d_head, groups))
            else:
                tensor.copy_(theirs[names[name]])
    return model.eval().requires_grad_(False)


def _their_name(name: str, biased: set[str]) -> str | None:
    """Return the library's name of one of our tensors; None if it has none, as for a bias of zeros."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}" if kind == "weight" else None
    _, layer, inner = module.split(".", 2)
    if kind == "bias" and inner not in biased:
        return None
    return f"model.layers.{layer}.{INSIDE[inner]}.{kind}"


def _is_shared(name: str) -> bool:
    return name.startswith("blocks.") and name.split(".", 2)[2].startswith(SHARED)


def _copy_to_heads(shared: Tensor, d_head: int, groups: int) -> Tensor:
    """Repeat the rows of each key-value head for the query heads of its group, which are neighbours."""
    return shared.unflatten(0, (-1, d_head)).repeat_interleave(groups, 0).flatten(0, 1)


def _biased(config: Any) -> set[str]:
    """Return our names of the matrices that have a bias in the library's model."""
    found: set[str] = set()
    if config.model_type == "qwen2":
        found |= {"attention.q", "attention.k", "attention.v"}
    if getattr(config, "attention_bias", False):
        found |= {"attention.q", "attention.k", "attention.v", "attention.out"}
    if getattr(config, "mlp_bias", False):
        found |= {"mlp.gate", "mlp.up", "mlp.down"}
    return found


def our_config(config: Any, folder: Path) -> ModelConfig:
    """Convert a config of the library to ours.

    Raises:
        UserError: as `read_llama`.
    """
    require_supported(config, folder, "hidden_act", "num_hidden_layers", {"partial_rotary_factor": 1.0})
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    if not 0 < shared <= heads or heads % shared:
        raise UserError(f"{folder}: num_key_value_heads: {shared}: allowed: a divisor of {heads}")
    window = getattr(config, "sliding_window", None)
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    theta, scaling = _rope(config.rope_parameters, folder)
    ours = {
        "n_layer": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_ctx": min(config.max_position_embeddings, window or config.max_position_embeddings),
        "d_head": d_head,
        "n_head": heads,
        "d_mlp": config.intermediate_size,
        "activation": ACTIVATIONS[config.hidden_act],
        "gated_mlp": True,
        "attention_sink": False,
        "bigram": "none",
        "positions": "rotary",
        "rotary_theta": theta,
        "rotary_scaling": scaling,
        "norm": "rms",
        "norm_eps": config.rms_norm_eps,
        "bias": bool(_biased(config)),
        "tied_embeddings": bool(config.tie_word_embeddings),
    }
    return validate(ModelConfig, ours, f"{folder} as our config")


def _rope(parameters: Any, folder: Path) -> tuple[Any, dict[str, Any] | None]:
    """Return the base of the rotary frequencies, and how they are scaled."""
    where = f"{folder}: rope_parameters"
    if not isinstance(parameters, dict):
        raise UserError(f"{where}: must be an object")
    kind = parameters.get("rope_type", "default")
    if kind not in SCALINGS:
        raise UserError(f"{where}.rope_type: {kind!r}: allowed: {', '.join(SCALINGS)}")
    if (part := parameters.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UserError(f"{where}.partial_rotary_factor: {part}: allowed: 1.0")
    names = {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_n_ctx": "original_max_position_embeddings",
    }
    scaling = {ours: parameters[theirs] for ours, theirs in names.items() if theirs in parameters}
    return parameters.get("rope_theta", 10_000.0), None if kind == "default" else {"kind": kind} | scaling
