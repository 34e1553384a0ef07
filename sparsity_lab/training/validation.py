"""Validation metrics of every model: held-out loss, and kurtosis of the final residual stream."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsity_lab.core import metrics
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer


def validation_metrics(model: Transformer, windows_bc: Tensor) -> dict[str, Tensor]:
    """Return the metrics of one batch of windows (b, n_ctx + 1), by name. The loss is in nats per token."""
    final: list[Tensor] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is Site.RESID and layer == 2 * model.config.n_layer:
            final.append(x)
        return x

    loss = model.loss(windows_bc[:, :-1], windows_bc[:, 1:], tap)
    return {metrics.VALIDATION_LOSS.name: loss, metrics.KURTOSIS.name: kurtosis(final[0]).mean()}


@torch.no_grad()
def validate_model(model: Transformer, batches: Sequence[Tensor]) -> dict[str, float]:
    """Average the metrics over all windows of the batches (b, n_ctx + 1), with equal weight per window."""
    measured = [validation_metrics(model, windows_bc) for windows_bc in batches]
    share_b = torch.tensor([float(len(windows_bc)) for windows_bc in batches])
    share_b /= share_b.sum()
    return {name: float(torch.stack([one[name] for one in measured]) @ share_b) for name in measured[0]}


def kurtosis(x_btd: Tensor) -> Tensor:
    """Return the kurtosis over channels at each position (b, t).

    It is 3 for a Gaussian, and larger if a few channels dominate.
    """
    centred = x_btd.float() - x_btd.float().mean(-1, keepdim=True)
    return centred.pow(4).mean(-1) / centred.pow(2).mean(-1).pow(2)
