"""The layout of the released models (openai/circuit_sparsity): `beeg_config.json` and `final_model.pt`.

The released code builds its model from the JSON, with the defaults of `ReleasedConfig`, and loads the weights
from the `.pt`. This module reads these two files as a `Transformer`, and writes a `Transformer` as these two
files. Names and shapes must match exactly. JSON keys that change the forward pass are read, keys that do not
(`INERT`) are ignored, and all others are rejected.

GPT-2 has the same tensors under the same names, some of them transposed, so `gpt2.py` shares the table.
"""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.foreign import foreign
from sparsity_lab.model.checkpoints import meta_model, require_finite, require_layers, require_tensors
from sparsity_lab.model.sites import NODE_SITES, NODES, Site
from sparsity_lab.model.transformer import ModelConfig, Transformer

CONFIG, TENSORS = "beeg_config.json", "final_model.pt"

INERT = frozenset(
    # settings of training, initialisation or implementation, and keys that the released code ignores
    (
        *("dropout", "dropout_cat_pos_emb", "sinusoidal_cat_pos_emb", "grad_checkpointing", "debug_nans"),
        *("flash", "enable_sparse_kernels", "sparse_matmul_impl", "debug_exact_topk", "tokenizer_name"),
        *("pfrac", "expansion_factor", "expansion_factor_mlp", "n_embd", "bigram_table_rank"),
    )
)


class ReleasedConfig(Config):
    """The keys of `beeg_config.json` that change the forward pass, with the released code's defaults."""

    block_size: PositiveInt = 1024
    vocab_size: PositiveInt = 50304
    n_layer: PositiveInt = 12
    n_head: PositiveInt = 12
    d_head: PositiveInt | None = None
    d_model: PositiveInt = 768
    d_mlp: PositiveInt | None = None
    bias: bool = True
    ln_bias: bool = True
    rms_norm: bool = False
    residual_activation_type: Literal["identity", "relu"] = "identity"
    activation_type: Literal["gelu", "relu"] = "gelu"
    afrac: float | None = None
    afrac_loctypes: str = "attn_in,attn_out,mlp_in,mlp_out"
    tied_unembed: bool = True
    enable_bigram_table: bool = False
    learnable_bigram_table: bool = False
    d_pos_emb: PositiveInt | None = None
    sink: bool = False
    use_tied_aux_matrix: Literal[False] = False


def hook_name(site: Site, layer: int, n_layer: int) -> str:
    """Return the released code's name of a node site, or of the residual stream at a boundary.

    Examples: `0.attn.act_in`, `2.resid_mid`, `final_resid`.
    """
    if site is not Site.RESID:
        return f"{layer}.{NODES[site].released}"
    return "final_resid" if layer == 2 * n_layer else f"{layer // 2}.resid_{('in', 'mid')[layer % 2]}"


def read_released(folder: Path) -> Transformer:
    """Read the model of a released folder, in evaluation mode, as float32.

    Raises:
        UserError: a file is missing or damaged, a key is unknown or has an unsupported value, or the tensors
            do not match the config.
    """
    config, vocab_size = read_config(folder / CONFIG)
    path = folder / TENSORS
    theirs = load_tensors(path)
    require_layers(config, theirs, path)
    if (unembedding := theirs.get("lm_head.weight")) is not None:
        theirs.setdefault("final_logits_bias", torch.zeros(unembedding.shape[:1]))
    for layer in range(config.n_layer):  # a buffer that is saved unless attention was fused
        mask = theirs.pop(f"transformer.h.{layer}.attn.bias", None)
        if mask is not None and not is_causal(mask):
            raise UserError(f"{path}: transformer.h.{layer}.attn.bias: not a causal mask")
    return build_model(config, vocab_size, theirs, path)


def read_config(path: Path) -> tuple[ModelConfig, int]:
    """Read our config and the vocabulary size from a `beeg_config.json`.

    Raises:
        UserError: as `read_released`.
    """
    card = read_json(path)
    if not isinstance(card, dict):
        raise UserError(f"{path}: must be one JSON object")
    card = {key: value for key, value in card.items() if key not in INERT}
    if "n_mlp" in card:  # the older name
        older = card.pop("n_mlp")
        if card.setdefault("d_mlp", older) != older:
            raise UserError(f"{path}: n_mlp {older} and d_mlp {card['d_mlp']} are one size by two names")
    theirs = validate(ReleasedConfig, card, str(path))
    sites, residual = _locations(theirs.afrac_loctypes, path)
    bigram = (
        ("learned" if theirs.learnable_bigram_table else "fixed") if theirs.enable_bigram_table else "none"
    )
    ours = {
        "n_layer": theirs.n_layer,
        "d_model": theirs.d_model,
        "n_ctx": theirs.block_size,
        "d_head": theirs.d_head or theirs.d_model // theirs.n_head,
        "n_head": theirs.n_head,
        "d_mlp": theirs.d_mlp or 4 * theirs.d_model,
        "activation_fraction": 1.0 if theirs.afrac is None else theirs.afrac,
        "activation_sites": sites,
        "residual_sites": residual,
        "residual_activation": theirs.residual_activation_type,
        "activation": theirs.activation_type,
        "norm": "rms" if theirs.rms_norm else "layer",
        "norm_bias": theirs.ln_bias,
        "bias": theirs.bias,
        "tied_embeddings": theirs.tied_unembed,
        "attention_sink": theirs.sink,
        "bigram": bigram,
        "positions": "learned" if theirs.d_pos_emb is None else "concatenated",
        "d_pos": theirs.d_pos_emb,
    }
    return validate(ModelConfig, ours, f"{path} as our config"), theirs.vocab_size


def write_released(model: Transformer, folder: Path) -> None:
    """Write `model` in the released layout. A model without positions gets zero position embeddings.

    Raises:
        UserError: the layout cannot express a setting of this model.
    """
    config = model.config
    default_eps = config.norm_eps is None or (config.norm == "layer" and config.norm_eps == 1e-5)
    for name, fits in (
        ("activation", config.activation in ("gelu", "relu")),
        ("gated_mlp", not config.gated_mlp),
        ("positions", config.positions != "rotary"),
        ("norm_eps", default_eps),
        ("n_head", config.d_model % config.heads == 0),
    ):
        if not fits:
            raise UserError(f"{name}: {getattr(config, name)}: cannot be expressed in the released layout")
    folder.mkdir(parents=True, exist_ok=True)
    places = [*config.activation_sites, *config.residual_sites]
    write_json(
        folder / CONFIG,
        {
            "block_size": config.n_ctx,
            "vocab_size": model.vocab_size,
            "n_layer": config.n_layer,
            "n_head": config.heads,
            "d_head": config.d_head,
            "d_model": config.d_model,
            "d_mlp": config.width(Site.MLP_NEURON),
            "dropout": 0.0,
            "bias": config.bias,
            "ln_bias": config.norm_bias,
            "rms_norm": config.norm == "rms",
            "residual_activation_type": config.residual_activation,
            "activation_type": config.activation,
            "afrac": config.activation_fraction if config.activation_fraction < 1 else None,
            "afrac_loctypes": ",".join(places),
            "tied_unembed": config.tied_embeddings,
            "enable_bigram_table": config.bigram != "none",
            "learnable_bigram_table": config.bigram == "learned",
            "d_pos_emb": config.d_pos,
            "sink": config.attention_sink,
        },
    )
    own = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    theirs = {
        name: torch.cat([own[part] for part in parts])
        for name, parts in their_names(config.n_layer).items()
        if parts[0] in own
    }
    theirs.setdefault("transformer.wpe.weight", torch.zeros(config.n_ctx, config.d_model))
    torch.save(theirs, folder / TENSORS)


def build_model(config: ModelConfig, vocab_size: int, theirs: dict[str, Tensor], path: Path) -> Transformer:
    """Build a `Transformer` in evaluation mode from tensors under the released names.

    `path` is only used in error messages.

    Raises:
        UserError: names or shapes do not match the config, a number is not finite, or tied embeddings differ.
    """
    own = meta_model(config, vocab_size, path).state_dict()
    names = {name: parts for name, parts in their_names(config.n_layer).items() if parts[0] in own}
    expected = {
        name: (sum(len(own[part]) for part in parts), *own[parts[0]].shape[1:])
        for name, parts in names.items()
    }
    require_tensors(theirs, expected, f"{path}: tensors differ from the config")
    require_finite(theirs, str(path))
    embedded, unembedded = theirs["transformer.wte.weight"], theirs["lm_head.weight"]
    if config.tied_embeddings and not torch.equal(embedded, unembedded):
        raise UserError(f"{path}: embeddings are tied, but transformer.wte.weight is not lm_head.weight")
    ours = {
        part: piece.float()
        for name, parts in names.items()
        for part, piece in zip(parts, theirs[name].chunk(len(parts)), strict=True)
    }
    model = Transformer(config, vocab_size)
    model.load_state_dict(ours, strict=True)
    return model.eval().requires_grad_(False)


def their_names(n_layer: int) -> dict[str, tuple[str, ...]]:
    """Map each released tensor name to our tensors, which it holds concatenated along the first axis."""
    names: dict[str, tuple[str, ...]] = {
        "bigram_table": ("bigram",),
        "final_logits_bias": ("unembedding.bias",),
        "transformer.wte.weight": ("embedding.weight",),
        "transformer.wpe.weight": ("positions.weight",),
        "lm_head.weight": ("unembedding.weight",),
    }
    modules: dict[str, tuple[str, ...]] = {"transformer.ln_f": ("norm",)}
    for layer in range(n_layer):
        their, our = f"transformer.h.{layer}.", f"blocks.{layer}."
        names[f"{their}attn.attn_imp.sink_logit"] = (f"{our}attention.sink",)
        modules |= {
            f"{their}ln_1": (f"{our}attention.read.norm",),
            f"{their}ln_p1": (f"{our}attention.read.position_norm",),
            f"{their}attn.c_attn": (f"{our}attention.q", f"{our}attention.k", f"{our}attention.v"),
            f"{their}attn.c_proj": (f"{our}attention.out",),
            f"{their}ln_2": (f"{our}mlp.read.norm",),
            f"{their}ln_p2": (f"{our}mlp.read.position_norm",),
            f"{their}mlp.c_fc": (f"{our}mlp.up",),
            f"{their}mlp.c_proj": (f"{our}mlp.down",),
        }
    for module, parts in modules.items():
        for kind in ("weight", "bias"):
            names[f"{module}.{kind}"] = tuple(f"{part}.{kind}" for part in parts)
    return names


def _locations(listed: str, path: Path) -> tuple[list[str], list[str]]:
    """Parse a comma-separated list of AbsTopK locations into node sites and residual-stream places."""
    sites, residual = [site.value for site in NODE_SITES], ["resid_post_attn", "resid_post_mlp"]
    named = listed.split(",") if listed else []
    for name in named:
        if name not in sites + residual:
            allowed = ", ".join(sites + residual)
            raise UserError(f"{path}: afrac_loctypes: {name!r}: allowed: {allowed}")
    return [site for site in sites if site in named], [place for place in residual if place in named]


def is_causal(mask: Tensor) -> bool:
    """Return whether a saved attention mask (1, 1, query, key) is causal."""
    shape = mask.shape[-2:]
    return mask.dim() == 4 and torch.equal(mask[0, 0].float(), torch.ones(shape).tril())


def load_torch(path: Path) -> Any:
    """Load a file of tensors and plain containers that torch wrote. No code in it is executed.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    with warnings.catch_warnings(), foreign(f"{path}: not readable by torch"):
        warnings.simplefilter("ignore")  # of damaged files; what torch rejects is raised
        return torch.load(path, map_location="cpu", weights_only=True)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load a dict of tensors that torch wrote.

    Raises:
        UserError: as `load_torch`.
    """
    theirs = load_torch(path)
    if not isinstance(theirs, dict) or not all(isinstance(tensor, Tensor) for tensor in theirs.values()):
        raise UserError(f"{path}: must be a dict of tensors")
    return dict(theirs)
