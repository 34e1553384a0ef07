"""The decoder, dense or weight-sparse: one forward pass, one set of sites (Gao et al. 2025, §2.1, App. A.1).

    x ← embedding[tokens]
    for each layer: x ← x + attention(read(x)); x ← x + mlp(read(x))        read = AbsTopK(norm(x))
    logits ← unembedding(norm(x)) + bigram[tokens]

At each site the value is thinned to its k largest magnitudes and handed to the tap, which may look at it and
return another. Nothing else in the project walks the layers. The defaults of `ModelConfig` are the paper's
model; its other switches are those of the released models (`released.py`) and of GPT-2 (`gpt2.py`).

Shape suffixes: b batch, t time, d d_model, r read width (d_model plus d_pos), c channels of a site, h heads,
k d_head, v vocabulary.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsity_lab.kernels.cpu.cross_entropy import overwriting_cross_entropy
from sparsity_lab.kernels.cpu.sparse_linear import Linear
from sparsity_lab.kernels.cpu.top_k import abs_top_k
from sparsity_lab.model.attention import causal_attention
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import Site, Start, Tap

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class Read(nn.Module):
    """What a sublayer sees of the residual stream: normalised, and beside it normalised positions, if any."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = config.make_norm(config.d_model)
        self.position_norm = config.make_norm(config.d_pos) if config.d_pos else None

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None) -> Tensor:
        x_btd = self.norm(x_btd)
        if self.position_norm is None or embedded_btp is None:
            return x_btd
        return torch.cat([x_btd, self.position_norm(embedded_btp)], -1)


class Attention(nn.Module):
    """Multi-head causal attention with an optional sink logit per head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.d_head, channels = config.d_head, config.heads * config.d_head
        self.mix = causal_attention
        self.read = Read(config)
        self.q = Linear(config.d_read, channels, config.bias)
        self.k = Linear(config.d_read, channels, config.bias)
        self.v = Linear(config.d_read, channels, config.bias)
        self.out = Linear(channels, config.d_model, config.bias)
        self.sink = nn.Parameter(torch.zeros(config.heads)) if config.attention_sink else None

    def forward(
        self, x_btd: Tensor, embedded_btp: Tensor | None, layer: int, at: Tap, position_b: Tensor | None
    ) -> Tensor:
        """What attention writes at every position, (b, t, d), or at one in each row, (b, 1, d)."""
        read_btr = at(Site.ATTN_IN, layer, self.read(x_btd, embedded_btp))
        q_bhqk = self._heads(at(Site.ATTN_Q, layer, self.q(rows_at(read_btr, position_b))))
        k_bhtk = self._heads(at(Site.ATTN_K, layer, self.k(read_btr)))
        v_bhtk = self._heads(at(Site.ATTN_V, layer, self.v(read_btr)))
        mixed_bhqk = self.mix(q_bhqk, k_bhtk, v_bhtk, self.sink, position_b)
        return at(Site.ATTN_OUT, layer, self.out(mixed_bhqk.transpose(1, 2).flatten(2)))

    def _heads(self, x_btc: Tensor) -> Tensor:
        return x_btc.unflatten(-1, (-1, self.d_head)).transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers with a nonlinearity between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        neurons = config.width(Site.MLP_NEURON)
        self.read = Read(config)
        self.up = Linear(config.d_read, neurons, config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.down = Linear(neurons, config.d_model, config.bias)

    def forward(self, x_btd: Tensor, embedded_btp: Tensor | None, layer: int, at: Tap) -> Tensor:
        read_btr = at(Site.MLP_IN, layer, self.read(x_btd, embedded_btp))
        neurons_btc = at(Site.MLP_NEURON, layer, self.activation(self.up(read_btr)))
        return at(Site.MLP_OUT, layer, self.down(neurons_btc))


class Block(nn.Module):
    """One layer's two sublayers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = MLP(config)


class Transformer(nn.Module):
    """Decoder-only language model over `vocab_size` tokens.

    `bigram_vv`, where `config.bigram` is "fixed", is the table added to the logits (row: current token); see
    `bigram_log_probabilities`.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, bigram_vv: Tensor | None = None) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = config.make_norm(config.d_model)
        self.unembedding = Linear(config.d_model, vocab_size)
        self.tie()
        width = config.d_pos or config.d_model
        self.positions = None if config.positions == "none" else nn.Embedding(config.n_ctx, width)
        table_vv = torch.zeros(vocab_size, vocab_size) if bigram_vv is None else bigram_vv
        if config.bigram == "fixed":
            self.register_buffer("bigram", table_vv)
        else:
            self.bigram = nn.Parameter(table_vv) if config.bigram == "learned" else None
        self._initialise()

    def forward(
        self,
        tokens_bt: Tensor,
        tap: Tap | None = None,
        position_b: Tensor | None = None,
        start: Start | None = None,
    ) -> Tensor:
        """Logits (b, t, v); with `position_b` only those of one position in each row, (b, v).

        What only other positions need is then not computed: in the last layer, taps see all positions at
        `ATTN_IN`, `ATTN_K` and `ATTN_V`, and elsewhere that one alone, (b, 1, channels).

        `start` gives the residual stream at a boundary: what comes before it is not computed.

        Raises:
            ValueError: a row is longer than n_ctx where positions are embedded, or there is no such boundary.
        """
        x_btd = self._stream(tokens_bt, tap, position_b, start)
        logits_btv = self.unembedding(self.norm(x_btd))
        if self.bigram is not None:
            logits_btv = logits_btv + F.embedding(rows_at(tokens_bt, position_b), self.bigram)
        return logits_btv if position_b is None else logits_btv.squeeze(1)

    def loss(self, tokens_bt: Tensor, targets_bt: Tensor, tap: Tap | None = None) -> Tensor:
        """Mean cross-entropy of the logits at `targets_bt`, in nats per token."""
        x_nd = self.norm(self._stream(tokens_bt, tap, None, None)).flatten(0, 1)
        logits_nv, bias_v = self.unembedding.product(x_nd, None), self.unembedding.bias
        tokens_n, targets_n = tokens_bt.flatten(), targets_bt.flatten()
        return overwriting_cross_entropy(logits_nv, bias_v, self.bigram, tokens_n, targets_n)

    def tie(self) -> None:
        """Make tied embeddings one parameter; a move to another device's empty memory parts them."""
        if self.config.tied_embeddings:
            self.unembedding.weight = self.embedding.weight

    def sparse_weights(self) -> dict[str, tuple[nn.Parameter, int | None]]:
        """The tensors that weight sparsity applies to, with the axis that at-least-j guards.

        Every matrix, bias and embedding; not norms, sinks or the bigram table (§2.1). The axis counts neurons
        or attention channels: rows of the query, key, value and MLP-in matrices, columns of the two that
        write. Tied embeddings are one tensor, the embedding's.
        """
        axes = {"q": 0, "k": 0, "v": 0, "up": 0, "out": 1, "down": 1}
        found: dict[str, tuple[nn.Parameter, int | None]] = {}
        for name, parameter in self.named_parameters():
            module, _, kind = name.rpartition(".")
            if isinstance(self.get_submodule(module), nn.Linear | nn.Embedding):
                axis = axes.get(module.rpartition(".")[2]) if kind == "weight" else None
                found[name] = parameter, axis
        return found

    def _stream(
        self, tokens_bt: Tensor, tap: Tap | None, position_b: Tensor | None, start: Start | None
    ) -> Tensor:
        """The residual stream before the unembedding, (b, t, d), or (b, 1, d) with `position_b`."""
        positions_tp = self._positions(tokens_bt.shape[1])
        first, x_btd = (0, self._embed(tokens_bt, positions_tp)) if start is None else start
        last = 2 * len(self.blocks)
        if not 0 <= first <= last:
            raise ValueError(f"boundary {first}: there are 0 to {last}")
        read_btp = None
        if positions_tp is not None and self.config.d_pos:
            read_btp = positions_tp.expand(len(tokens_bt), -1, -1)

        def at(site: Site, layer: int, x_btc: Tensor) -> Tensor:
            if site in self.config.activation_sites:
                x_btc = abs_top_k(x_btc, self.config.k(x_btc.shape[-1]))
            return x_btc if tap is None else tap(site, layer, x_btc)

        if first > last - 2:
            x_btd = rows_at(x_btd, position_b)
            read_btp = None if read_btp is None else rows_at(read_btp, position_b)
        for boundary in range(first, last):
            layer, is_mlp = divmod(boundary, 2)
            block: Any = self.blocks[layer]
            x_btd = at(Site.RESID, boundary, x_btd)
            if is_mlp:
                written_btd = block.mlp(x_btd, read_btp, layer, at)
                x_btd = self._add(x_btd, written_btd, "resid_post_mlp")
            else:
                only_b = position_b if boundary == last - 2 else None
                written_btd = block.attention(x_btd, read_btp, layer, at, only_b)
                x_btd = self._add(rows_at(x_btd, only_b), written_btd, "resid_post_attn")
                read_btp = None if read_btp is None else rows_at(read_btp, only_b)
        return at(Site.RESID, last, x_btd)

    def _add(self, x_btd: Tensor, written_btd: Tensor, place: str) -> Tensor:
        """The residual stream after a sublayer has written to it."""
        x_btd = x_btd + written_btd
        if self.config.residual_activation == "relu":
            x_btd = x_btd.relu()
        if place in self.config.residual_sites:
            x_btd = abs_top_k(x_btd, self.config.k(x_btd.shape[-1]))
        return x_btd

    def _positions(self, length: int) -> Tensor | None:
        if self.positions is None:
            return None
        if length > self.config.n_ctx:
            raise ValueError(f"{length} tokens, but the context is {self.config.n_ctx}")
        return self.positions.weight[:length]

    def _embed(self, tokens_bt: Tensor, positions_tp: Tensor | None) -> Tensor:
        x_btd = self.embedding(tokens_bt)
        return x_btd if positions_tp is None or self.config.d_pos else x_btd + positions_tp

    def _initialise(self) -> None:
        """As GPT-2: 0.02, less by sqrt(2 · n_layer) for what writes to the residual stream; zero biases."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes = name.endswith((".out", ".down"))
                nn.init.normal_(
                    module.weight, std=0.02 / (math.sqrt(2 * self.config.n_layer) if writes else 1)
                )
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def rows_at(x: Tensor, position_b: Tensor | None) -> Tensor:
    """Of each row of a (b, t, ...) tensor one position, (b, 1, ...); all of them where none is given."""
    if position_b is None:
        return x
    return x[torch.arange(len(position_b), device=x.device), position_b].unsqueeze(1)


def bigram_log_probabilities(counts_vv: Tensor, smoothing: float = 0.1) -> Tensor:
    """log P(next | current), float32 (v, v), from bigram counts with additive smoothing."""
    smoothed_vv = counts_vv.double() + smoothing
    return (smoothed_vv / smoothed_vv.sum(1, keepdim=True)).log().float()
