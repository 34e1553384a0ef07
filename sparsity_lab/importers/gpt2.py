"""Import a GPT-2 style language model from a local `transformers` folder; needs the extra [transformers].

GPT-2 is a `Transformer` with LayerNorm, learned positions and tied embeddings, except that its Conv1D
matrices are transposed. The `transformers` library reads the files, so old formats work. Nothing is
downloaded.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.foreign import foreign
from sparsity_lab.importers.released import build_model
from sparsity_lab.model.transformer import ModelConfig, Transformer

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
MOST_LAYERS = 1000
HARMLESS = re.compile(r"attn\.(masked_)?bias$")  # causal masks that old versions of transformers saved
ONLY = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}


def read_gpt2(folder: Path) -> Transformer:
    """Read the model from a folder that `save_pretrained` wrote, in evaluation mode, as float32.

    Raises:
        UserError: `transformers` is not installed, the folder does not contain a complete GPT-2 or contains
            further tensors, a number is not finite, or the config uses a feature that `Transformer` lacks.
    """
    try:
        from transformers import AutoConfig, GPT2LMHeadModel
    except ImportError:
        raise UserError("reading a GPT-2 needs the extra [transformers]: pip install transformers") from None
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json, so not a folder of a transformers model")
    with _quiet(), foreign(f"{folder}: not readable by transformers"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "gpt2":
            raise UserError(f"{folder}: model_type: {config.model_type!r}: allowed: 'gpt2'")
        ours = our_config(config, folder)
        read: Any = GPT2LMHeadModel.from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True
        )
    module, report = read
    kinds = {"missing": "missing_keys", "unknown": "unexpected_keys", "wrong shape": "mismatched_keys"}
    wrong = {
        kind: sorted(name for name in map(str, report[key]) if not HARMLESS.search(name))
        for kind, key in kinds.items()
    }
    if any(wrong.values()):
        told = "; ".join(f"{kind}: {', '.join(names[:5])}" for kind, names in wrong.items() if names)
        raise UserError(f"{folder}: tensors differ from config.json: {told}")
    theirs = module.state_dict()
    for name, tensor in theirs.items():
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            theirs[name] = tensor.T
    theirs["final_logits_bias"] = theirs["lm_head.weight"].new_zeros(config.vocab_size)
    return build_model(ours, config.vocab_size, theirs, folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's reports and progress bars off the console; every fault is raised here instead."""
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
