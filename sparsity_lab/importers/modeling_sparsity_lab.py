"""A model of sparsity_lab for `transformers`; it needs torch and transformers alone.

`python -m sparsity_lab.export RUN OUT --layout transformers` copies this file beside the weights, where
`AutoModelForCausalLM.from_pretrained(OUT, trust_remote_code=True)` runs it. It computes what
`sparsity_lab.model.transformer` computes, and adds padding, the cache of `generate`, and nothing else.

Shape suffixes: b batch, t time, d d_model, c channels of a site, h heads, q queries, s keys, k d_head,
f pairs of rotary channels, v vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

NODE_SITES = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")
DEFAULTS: dict[str, Any] = {
    **{"vocab_size": 257, "n_layer": 1, "d_model": 16, "n_ctx": 128, "d_head": 16, "n_head": 1, "d_mlp": 64},
    **{"activation_fraction": 1.0, "activation_sites": NODE_SITES, "residual_sites": (), "bias": True},
    **{"residual_activation": "identity", "activation": "gelu", "gated_mlp": False, "attention_sink": True},
    **{"norm": "rms", "norm_bias": True, "norm_eps": None, "bigram": "fixed", "positions": "none"},
    **{"d_pos": None, "rotary_theta": 10_000.0, "rotary_scaling": None},
}


class SparsityLabConfig(PreTrainedConfig):
    """The shape and switches of a model, as `ModelConfig` of sparsity_lab describes them."""

    model_type = "sparsity_lab"
    attribute_map = {  # noqa: RUF012 - the library's own form
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_ctx",
        "intermediate_size": "d_mlp",
    }

    def __init__(self, **kwargs: Any) -> None:
        for name, default in DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, default))
        super().__init__(**kwargs)


def thin(x: Tensor, fraction: float) -> Tensor:
    """AbsTopK: keep the largest magnitudes of the last axis; the lower channel wins a tie."""
    k = int(fraction * x.shape[-1])
    if k >= x.shape[-1]:
        return x
    largest = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(x).scatter(-1, largest, x.gather(-1, largest))


def make_norm(config: SparsityLabConfig, width: int) -> nn.Module:
    """Make the normalisation of `width` channels."""
    if config.norm == "rms":
        return nn.RMSNorm(width, config.norm_eps or torch.finfo(torch.float32).eps)
    return nn.LayerNorm(width, config.norm_eps or 1e-5, bias=config.norm_bias)


def activate(x: Tensor, kind: str) -> Tensor:
    """Apply the MLP's nonlinearity."""
    if kind in ("relu", "silu"):
        return x.relu() if kind == "relu" else F.silu(x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def rotate(x_bhtk: Tensor, config: SparsityLabConfig, position_bt: Tensor) -> Tensor:
    """Turn queries or keys by their positions (rotary embeddings)."""
    exponent_f = torch.arange(0, config.d_head, 2, device=x_bhtk.device).float() / config.d_head
    frequency_f, scaling = 1.0 / config.rotary_theta**exponent_f, config.rotary_scaling
    if scaling is not None and scaling["kind"] == "linear":
        frequency_f = frequency_f / scaling["factor"]
    elif scaling is not None:
        turns_f = scaling["original_n_ctx"] * frequency_f / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept_f = ((turns_f - low) / (high - low)).clamp(0, 1)
        frequency_f = frequency_f * (kept_f + (1 - kept_f) / scaling["factor"])
    angle_b1tf = position_bt[:, None, :, None].float() * frequency_f
    cos, sin = angle_b1tf.cos(), angle_b1tf.sin()
    first, second = x_bhtk.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x_bhtk.dtype)


class Site(nn.Module):
    """A place in the forward pass: AbsTopK where the config asks for it, and a module for others' hooks.

    `blocks.0.attention.attn_q` and its like are named as in sparsity_lab; a forward hook may read or replace
    their outputs.
    """

    def __init__(self, config: SparsityLabConfig, name: str) -> None:
        super().__init__()
        thinned = name in (*config.activation_sites, *config.residual_sites)
        self.fraction = config.activation_fraction if thinned else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return thin(x, self.fraction)


class Read(nn.Module):
    """The input of a sublayer: the normalised residual stream, with positions where they are concatenated."""

    def __init__(self, config: SparsityLabConfig) -> None:
        super().__init__()
        self.norm = make_norm(config, config.d_model)
        self.position_norm = make_norm(config, config.d_pos) if config.d_pos else None

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None) -> Tensor:
        x_btd = self.norm(x_btd)
        if self.position_norm is None:
            return x_btd
        return torch.cat([x_btd, self.position_norm(embedded_btp)], -1)


class Attention(nn.Module):
    """Causal attention with an optional sink logit per head."""

    def __init__(self, config: SparsityLabConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.read = config, layer, Read(config)
        self.attn_in, self.attn_pattern = Site(config, "attn_in"), Site(config, "attn_pattern")
        self.attn_q, self.attn_k, self.attn_v = (Site(config, f"attn_{name}") for name in "qkv")
        self.attn_out = Site(config, "attn_out")
        read, channels = config.d_model + (config.d_pos or 0), config.n_head * config.d_head
        self.q, self.k, self.v = (nn.Linear(read, channels, config.bias) for _ in range(3))
        self.out = nn.Linear(channels, config.d_model, config.bias)
        self.sink = nn.Parameter(torch.zeros(config.n_head)) if config.attention_sink else None

    def forward(
        self, x_btd: Tensor, embedded_btp: Tensor | None, position_bt: Tensor, hidden_b1qs: Tensor, cache: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the output to the residual stream, and the attention pattern (b, h, q, s)."""
        read_btc = self.attn_in(self.read(x_btd, embedded_btp))
        q_bhqk, k_bhsk, v_bhsk = (
            site(linear(read_btc)).unflatten(-1, (-1, self.config.d_head)).transpose(1, 2)
            for site, linear in ((self.attn_q, self.q), (self.attn_k, self.k), (self.attn_v, self.v))
        )
        if self.config.positions == "rotary":
            q_bhqk = rotate(q_bhqk, self.config, position_bt)
            k_bhsk = rotate(k_bhsk, self.config, position_bt)
        if cache is not None:
            k_bhsk, v_bhsk = cache.update(k_bhsk, v_bhsk, self.layer)
        scores_bhqs = q_bhqk @ k_bhsk.mT / self.config.d_head**0.5
        scores_bhqs = scores_bhqs.masked_fill(hidden_b1qs, torch.finfo(scores_bhqs.dtype).min)
        if self.sink is not None:
            sink_bhq1 = self.sink.view(1, -1, 1, 1).expand(*scores_bhqs.shape[:3], 1)
            pattern_bhqs = torch.cat([scores_bhqs, sink_bhq1.to(scores_bhqs.dtype)], -1).softmax(-1)[..., :-1]
        else:
            pattern_bhqs = scores_bhqs.softmax(-1)
        pattern_bhqs = self.attn_pattern(pattern_bhqs)
        mixed_btc = (pattern_bhqs @ v_bhsk).transpose(1, 2).flatten(2)
        return self.attn_out(self.out(mixed_btc)), pattern_bhqs


class MLP(nn.Module):
    """Two linear layers with a nonlinearity in between, or with a product of gate and input."""

    def __init__(self, config: SparsityLabConfig) -> None:
        super().__init__()
        self.config, self.read = config, Read(config)
        self.mlp_in, self.mlp_neuron = Site(config, "mlp_in"), Site(config, "mlp_neuron")
        self.mlp_out = Site(config, "mlp_out")
        self.mlp_gate = Site(config, "mlp_gate") if config.gated_mlp else None
        read = config.d_model + (config.d_pos or 0)
        self.gate = nn.Linear(read, config.d_mlp, config.bias) if config.gated_mlp else None
        self.up = nn.Linear(read, config.d_mlp, config.bias)
        self.down = nn.Linear(config.d_mlp, config.d_model, config.bias)

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None) -> Tensor:
        read_btc = self.mlp_in(self.read(x_btd, embedded_btp))
        if self.gate is None or self.mlp_gate is None:
            neurons_btc = activate(self.up(read_btc), self.config.activation)
        else:
            gate_btc = self.mlp_gate(activate(self.gate(read_btc), self.config.activation))
            neurons_btc = gate_btc * self.up(read_btc)
        return self.mlp_out(self.down(self.mlp_neuron(neurons_btc)))


class Block(nn.Module):
    """One layer: its attention and MLP sublayers."""

    def __init__(self, config: SparsityLabConfig, layer: int) -> None:
        super().__init__()
        self.relu = config.residual_activation == "relu"
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.resid_pre_attn, self.resid_post_attn = (Site(config, f"resid_{x}_attn") for x in ("pre", "post"))
        self.resid_post_mlp = Site(config, "resid_post_mlp")

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None, *more: Any) -> tuple[Tensor, Tensor]:
        """Return the residual stream after the layer, and the attention pattern."""
        x_btd = self.resid_pre_attn(x_btd)
        written_btd, pattern_bhqs = self.attention(x_btd, embedded_btp, *more)
        x_btd = self.resid_post_attn(self._add(x_btd, written_btd))
        return self.resid_post_mlp(self._add(x_btd, self.mlp(x_btd, embedded_btp))), pattern_bhqs

    def _add(self, x_btd: Tensor, written_btd: Tensor) -> Tensor:
        return (x_btd + written_btd).relu() if self.relu else x_btd + written_btd


class SparsityLabForCausalLM(PreTrainedModel, GenerationMixin):
    """Decoder-only language model, dense or weight-sparse."""

    config_class = SparsityLabConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]  # noqa: RUF012
    _tied_weights_keys = {"unembedding.weight": "embedding.weight"}  # noqa: RUF012

    def __init__(self, config: SparsityLabConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config, config.d_model)
        self.unembedding = nn.Linear(config.d_model, config.vocab_size)
        embedded = config.positions in ("learned", "concatenated")
        width = config.d_pos or config.d_model
        self.positions = nn.Embedding(config.n_ctx, width) if embedded else None
        table_vv = torch.zeros(config.vocab_size, config.vocab_size) if config.bigram != "none" else None
        if config.bigram == "fixed":
            self.register_buffer("bigram", table_vv)
        else:
            self.bigram = None if table_vv is None else nn.Parameter(table_vv)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.unembedding

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits (b, t, v); `attention_mask` is 1 at tokens and 0 at padding, on either side.

        The hidden states are the residual stream before each layer, and the final one after its norm.

        Raises:
            ValueError: a row is longer than n_ctx in a model with positions, or the mask is not (b, keys).
        """
        config = self.config
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=config)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        length, device = input_ids.shape[1], input_ids.device
        if config.positions != "none" and past + length > config.n_ctx:
            raise ValueError(f"{past + length} tokens, but the context is {config.n_ctx}")
        query_q = torch.arange(past, past + length, device=device)
        hidden_b1qs = (torch.arange(past + length, device=device) > query_q[:, None])[None, None]
        position_bt = query_q[None]
        if attention_mask is not None:
            if attention_mask.dim() != 2 or attention_mask.shape[1] != past + length:
                raise ValueError(f"attention_mask: {tuple(attention_mask.shape)}: allowed: (batch, all keys)")
            hidden_b1qs = hidden_b1qs | (attention_mask == 0)[:, None, None]
            position_bt = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        if position_ids is not None:
            position_bt = position_ids

        x_btd, embedded_btp = self.embedding(input_ids), None
        if self.positions is not None:
            embedded_btp = self.positions(position_bt).expand(len(input_ids), -1, -1)
            x_btd = x_btd if config.d_pos else x_btd + embedded_btp
        streams, patterns = [x_btd], []
        for block in self.blocks:
            x_btd, pattern_bhqs = block(x_btd, embedded_btp, position_bt, hidden_b1qs, past_key_values)
            streams.append(x_btd)
            patterns.append(pattern_bhqs)
        streams[-1] = x_btd = self.norm(x_btd)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_btv = self.unembedding(x_btd[:, kept])
        if self.bigram is not None:
            logits_btv = logits_btv + F.embedding(input_ids[:, kept], self.bigram)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits_btv, labels, vocab_size=config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_btv,
            past_key_values=past_key_values,
            hidden_states=tuple(streams) if output_hidden_states else None,
            attentions=tuple(patterns) if output_attentions else None,
        )
