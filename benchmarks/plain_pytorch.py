"""The sparse training step in plain PyTorch, as the baseline for the project's kernels.

AbsTopK uses `torch.topk` in a tap. Attention is a masked product with a padded key for the sink. The
projection uses `torch.topk` and `torch.kthvalue`. Matrix products are dense. Bigram rows are gathered and
added to the logits before the cross-entropy.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.core import metrics
from sparsity_lab.model.dispatch import plain_operations
from sparsity_lab.model.sites import NODE_SITES, Site, Start, Tap
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.training.objective import NextToken
from sparsity_lab.training.sparsity.magnitude import Magnitude, kept_count


class PlainTransformer(Transformer):
    """The `Transformer` with AbsTopK by `torch.topk` and without kernels in all other operations."""

    def __init__(self, config: ModelConfig, vocab_size: int, bigram_vv: Tensor | None = None) -> None:
        super().__init__(config.model_copy(update={"activation_fraction": 1.0}), vocab_size, bigram_vv)
        self.fraction = config.activation_fraction

    def forward(
        self,
        tokens_bt: Tensor,
        tap: Tap | None = None,
        position_b: Tensor | None = None,
        start: Start | None = None,
    ) -> Tensor:
        def thinned(site: Site, layer: int, x: Tensor) -> Tensor:
            if site in NODE_SITES:
                x = plain_abs_top_k(x, int(self.fraction * x.shape[-1]))
            return x if tap is None else tap(site, layer, x)

        with plain_operations():
            return super().forward(tokens_bt, thinned, position_b, start)


class PlainNextToken(NextToken):
    """Cross-entropy that materialises all logits in memory."""

    def __call__(
        self, model: Transformer, windows: Tensor, step: int, tap: Tap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits_btv = model(windows[:, :-1], tap)
        loss = F.cross_entropy(logits_btv.flatten(0, 1).float(), windows[:, 1:].flatten())
        return loss, {metrics.TRAIN_LOSS.name: loss.detach()}


class PlainMagnitude(Magnitude):
    """Magnitude pruning with plain operations."""

    def after_step(self, model: Transformer, step: int) -> None:
        kept = self.kept_fraction(step)
        for weight, axis in model.sparse_weights().values():
            plain_project(weight, kept, axis, self.config.at_least)


def plain_abs_top_k(x: Tensor, k: int) -> Tensor:
    """Apply AbsTopK; ties are broken arbitrarily."""
    index = x.abs().topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(x).scatter(-1, index, x.gather(-1, index))


@torch.no_grad()
def plain_project(weight: Tensor, fraction: float, axis: int | None, at_least: int) -> None:
    """Project a weight; weights tied at the threshold are all kept."""
    if fraction >= 1:
        return
    magnitude = weight.abs()
    channels = 1 if axis is None else weight.shape[axis]
    at_least = 0 if axis is None else min(at_least, weight.numel() // channels)
    rest = kept_count(weight.numel(), fraction, channels, at_least) - channels * at_least
    kept = torch.zeros_like(weight, dtype=torch.bool)
    if axis is not None and at_least:
        first = magnitude.topk(at_least, dim=1 - axis, sorted=False).indices
        kept.scatter_(1 - axis, first, True)
        magnitude = magnitude.masked_fill(kept, -1)
    if rest > 0:
        kept |= magnitude >= magnitude.flatten().kthvalue(weight.numel() - rest + 1).values
    weight.masked_fill_(~kept, 0)
