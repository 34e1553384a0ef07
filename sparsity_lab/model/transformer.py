"""The decoder, dense or weight-sparse: one forward pass, one set of sites (Gao et al. 2025, §2.1, App. A.1).

    x ← embedding[tokens]
    for each layer: x ← x + attention(read(x)); x ← x + mlp(read(x))        read = AbsTopK(norm(x))
    logits ← unembedding(norm(x)) + bigram[tokens]

At each of `activation_sites`, AbsTopK keeps the k largest magnitudes. Every site then passes its value to the
tap, which may read or replace it. No other code in the project loops over the layers. Attention and MLP are
in `layers.py`, operations in `ops.py`. The defaults of `ModelConfig` are the paper's model with AbsTopK off
(`activation_fraction` is 1). The other switches serve the released models (`importers/released.py`), GPT-2
(`importers/gpt2.py`) and Llama-like models (`importers/llama.py`).

Shape suffixes: b batch, t time, d d_model, p d_pos, c channels of a site, v vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.layers import Block, Visit, rows_at
from sparsity_lab.model.listing import Embedding
from sparsity_lab.model.norm import make_norm
from sparsity_lab.model.ops import Linear, abs_top_k, unembed, unembed_and_compare
from sparsity_lab.model.sites import MATRICES, WRITES, Site, Start, Tap


class Transformer(nn.Module):
    """Decoder-only language model over `vocab_size` tokens.

    `bigram_vv` is the table added to the logits (row: current token). It stays fixed if `config.bigram` is
    "fixed", and is the initial value if it is "learned"; see `bigram_log_probabilities`.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, bigram_vv: Tensor | None = None) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = Embedding(vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = make_norm(config, config.d_model)
        self.unembedding = Linear(config.d_model, vocab_size)
        self.tie()
        width = config.d_pos or config.d_model
        embedded = config.positions in ("learned", "concatenated")
        self.positions = nn.Embedding(config.n_ctx, width) if embedded else None
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
        """Compute logits (b, t, v), or with `position_b` those of one position per row, (b, v).

        With `position_b`, the last layer computes only what those positions need. Its taps see all positions
        at the first `RESID`, `ATTN_IN`, `ATTN_K` and `ATTN_V`, and one, (b, 1, channels), elsewhere.

        With `start`, the pass begins at a boundary with a given residual stream.

        Raises:
            ValueError: a row is longer than n_ctx in a model with positions, or there is no such boundary.
        """
        x_btd = self.norm(self._stream(tokens_bt, tap, position_b, start))
        logits_btv = unembed(x_btd, self.unembedding, self.bigram, rows_at(tokens_bt, position_b))
        return logits_btv if position_b is None else logits_btv.squeeze(1)

    def loss(self, tokens_bt: Tensor, targets_bt: Tensor, tap: Tap | None = None) -> Tensor:
        """Compute the mean cross-entropy at `targets_bt` in nats per token; targets of -100 are left out.

        Raises:
            ValueError: the numbers of targets and tokens differ.
            IndexError: a target is outside the vocabulary.
        """
        x_btd = self.norm(self._stream(tokens_bt, tap, None, None))
        return unembed_and_compare(x_btd, self.unembedding, self.bigram, tokens_bt, targets_bt)

    def tie(self) -> None:
        """Share the parameter of tied embeddings; `to_empty` separates them."""
        if self.config.tied_embeddings:
            self.unembedding.weight = self.embedding.weight

    def sparse_weights(self) -> dict[str, tuple[nn.Parameter, int | None]]:
        """Map names to the tensors under weight sparsity, each with the axis that at-least-j guards.

        Every matrix, bias and embedding is included; norms, sinks and the bigram table are not (§2.1). The
        axis is that of neurons or attention channels: rows of the query, key, value and MLP-in matrices,
        columns of the two output matrices. Tied embeddings appear once, as the embedding.
        """
        axes = {
            f"blocks.{layer}.{matrix.name}.weight": matrix.channel_axis
            for layer in range(self.config.n_layer)
            for matrix in MATRICES
        }
        found: dict[str, tuple[nn.Parameter, int | None]] = {}
        for name, parameter in self.named_parameters():
            module = self.get_submodule(name.rpartition(".")[0])
            if isinstance(module, nn.Linear | nn.Embedding):
                found[name] = parameter, axes.get(name)
        return found

    def _stream(
        self, tokens_bt: Tensor, tap: Tap | None, position_b: Tensor | None, start: Start | None
    ) -> Tensor:
        """Return the final residual stream (b, t, d), or (b, 1, d) with `position_b`."""
        positions_tp = self._positions(tokens_bt.shape[1])
        first, x_btd = (0, self._embed(tokens_bt, positions_tp)) if start is None else start
        last = 2 * len(self.blocks)
        if not 0 <= first <= last:
            raise ValueError(f"boundary {first}: there are 0 to {last}")
        embedded_btp = None
        if positions_tp is not None and self.config.d_pos:
            embedded_btp = positions_tp.expand(len(tokens_bt), -1, -1)

        visit = Visit(self.config, tap)
        if first > last - 2:
            x_btd = rows_at(x_btd, position_b)
            embedded_btp = None if embedded_btp is None else rows_at(embedded_btp, position_b)
        for boundary in range(first, last):
            layer, is_mlp = divmod(boundary, 2)
            block: Any = self.blocks[layer]
            x_btd = visit(Site.RESID, boundary, x_btd)
            if is_mlp:
                written_btd = block.mlp(x_btd, embedded_btp, layer, visit)
                x_btd = self._add(x_btd, written_btd, "resid_post_mlp")
            else:
                only_b = position_b if boundary == last - 2 else None
                written_btd = block.attention(x_btd, embedded_btp, layer, visit, only_b)
                x_btd = self._add(rows_at(x_btd, only_b), written_btd, "resid_post_attn")
                embedded_btp = None if embedded_btp is None else rows_at(embedded_btp, only_b)
        return visit(Site.RESID, last, x_btd)

    def _add(self, x_btd: Tensor, written_btd: Tensor, place: str) -> Tensor:
        """Add a sublayer's output to the residual stream."""
        x_btd = x_btd + written_btd
        if self.config.residual_activation == "relu":
            x_btd = x_btd.relu()
        if place in self.config.residual_sites:
            x_btd = abs_top_k(x_btd, self.config.k(x_btd.shape[-1]))
        return x_btd

    def _positions(self, length: int) -> Tensor | None:
        if self.config.limits_length and length > self.config.n_ctx:
            raise ValueError(f"{length} tokens, but the context is {self.config.n_ctx}")
        return None if self.positions is None else self.positions.weight[:length]

    def _embed(self, tokens_bt: Tensor, positions_tp: Tensor | None) -> Tensor:
        x_btd = self.embedding(tokens_bt)
        return x_btd if positions_tp is None or self.config.d_pos else x_btd + positions_tp

    def _initialise(self) -> None:
        """Draw embeddings with std 0.02, the blocks' matrices with 1 / sqrt(inputs), and set biases to zero.

        Output matrices are divided by sqrt(2 · n_layer) as in GPT-2. Its std of 0.02 suits 2,500 inputs; at
        the widths here it leaves queries, keys and neurons too small to learn from.
        """
        writers = tuple(f".{matrix.name}" for matrix in MATRICES if matrix.target in WRITES.values())
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                std = module.weight.shape[1] ** -0.5 if name.startswith("blocks.") else 0.02
                if name.endswith(writers):
                    std /= math.sqrt(2 * self.config.n_layer)
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def bigram_log_probabilities(counts_vv: Tensor, smoothing: float = 0.1) -> Tensor:
    """Compute log P(next | current), float32 (v, v), from bigram counts with additive smoothing."""
    smoothed_vv = counts_vv.double() + smoothing
    return (smoothed_vv / smoothed_vv.sum(1, keepdim=True)).log().float()
