"""The parts of a transformer layer: norm, attention, MLP, and site visits (Gao et al. 2025, §2.1).

Shape suffixes: b batch, t time, d d_model, r read width (d_model plus d_pos), p d_pos, c channels of a site,
h heads, q queries, k d_head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.norm import make_norm
from sparsity_lab.model.ops import Linear, abs_top_k, attention_pattern, causal_attention
from sparsity_lab.model.rotary import rotate
from sparsity_lab.model.sites import Site, Tap, asks_for_pattern

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass(frozen=True)
class Visit:
    """Callable applied to the activations at every site: AbsTopK where configured, then the tap."""

    config: ModelConfig
    tap: Tap | None

    def __call__(self, site: Site, layer: int, x_btc: Tensor) -> Tensor:
        if site in self.config.activation_sites:
            x_btc = abs_top_k(x_btc, self.config.k(x_btc.shape[-1]))
        return x_btc if self.tap is None else self.tap(site, layer, x_btc)

    def show_pattern(
        self, layer: int, q_bhqk: Tensor, k_bhtk: Tensor, sink_h: Tensor | None, position_b: Tensor | None
    ) -> None:
        """Compute the attention pattern and show it to the tap, if the tap asks for it.

        Raises:
            ValueError: the tap returned another tensor; the pattern is read-only.
        """
        if self.tap is None or not asks_for_pattern(self.tap):
            return
        pattern_bhqt = attention_pattern(q_bhqk, k_bhtk, sink_h, position_b)
        if self.tap(Site.ATTN_PATTERN, layer, pattern_bhqt) is not pattern_bhqt:
            raise ValueError("attn_pattern is read-only: a tap must return the tensor that it was given")


class Read(nn.Module):
    """The input of a sublayer: the normalised residual stream.

    Models with `d_pos` concatenate normalised position embeddings (b, t, p) to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = make_norm(config, config.d_model)
        self.position_norm = make_norm(config, config.d_pos) if config.d_pos else None

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None) -> Tensor:
        x_btd = self.norm(x_btd)
        if self.position_norm is None or embedded_btp is None:
            return x_btd
        return torch.cat([x_btd, self.position_norm(embedded_btp)], -1)


class Attention(nn.Module):
    """Multi-head causal attention with an optional sink logit per head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, channels = config, config.heads * config.d_head
        self.read = Read(config)
        self.q = Linear(config.d_read, channels, config.bias)
        self.k = Linear(config.d_read, channels, config.bias)
        self.v = Linear(config.d_read, channels, config.bias)
        self.out = Linear(channels, config.d_model, config.bias)
        self.sink = nn.Parameter(torch.zeros(config.heads)) if config.attention_sink else None

    def forward(
        self, x_btd: Tensor, embedded_btp: Tensor | None, layer: int, visit: Visit, position_b: Tensor | None
    ) -> Tensor:
        """Return the output to the residual stream at all positions (b, t, d) or one per row (b, 1, d)."""
        read_btr = visit(Site.ATTN_IN, layer, self.read(x_btd, embedded_btp))
        q_bhqk = self._heads(visit(Site.ATTN_Q, layer, self.q(rows_at(read_btr, position_b))))
        k_bhtk = self._heads(visit(Site.ATTN_K, layer, self.k(read_btr)))
        v_bhtk = self._heads(visit(Site.ATTN_V, layer, self.v(read_btr)))
        if self.config.positions == "rotary":
            q_bhqk, k_bhtk = rotate(q_bhqk, self.config, position_b), rotate(k_bhtk, self.config)
        visit.show_pattern(layer, q_bhqk, k_bhtk, self.sink, position_b)
        mixed_bhqk = causal_attention(q_bhqk, k_bhtk, v_bhtk, self.sink, position_b)
        return visit(Site.ATTN_OUT, layer, self.out(mixed_bhqk.transpose(1, 2).flatten(2)))

    def _heads(self, x_btc: Tensor) -> Tensor:
        return x_btc.unflatten(-1, (-1, self.config.d_head)).transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers with a nonlinearity in between, or with a product of gate and input (SwiGLU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        neurons = config.width(Site.MLP_NEURON)
        self.read = Read(config)
        self.gate = Linear(config.d_read, neurons, config.bias) if config.gated_mlp else None
        self.up = Linear(config.d_read, neurons, config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.down = Linear(neurons, config.d_model, config.bias)

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None, layer: int, visit: Visit) -> Tensor:
        read_btr = visit(Site.MLP_IN, layer, self.read(x_btd, embedded_btp))
        if self.gate is None:
            neurons_btc = self.activation(self.up(read_btr))
        else:
            gate_btc = visit(Site.MLP_GATE, layer, self.activation(self.gate(read_btr)))
            neurons_btc = gate_btc * self.up(read_btr)
        return visit(Site.MLP_OUT, layer, self.down(visit(Site.MLP_NEURON, layer, neurons_btc)))


class Block(nn.Module):
    """One layer: its attention and MLP sublayers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = MLP(config)


def rows_at(x: Tensor, position_b: Tensor | None) -> Tensor:
    """Select one position per row of a (b, t, ...) tensor, giving (b, 1, ...); all positions if None."""
    if position_b is None:
        return x
    return x[torch.arange(len(position_b), device=x.device), position_b].unsqueeze(1)
