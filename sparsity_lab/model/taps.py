"""The residual stream at each boundary of a forward pass, looked at by a tap."""

from torch import Tensor

from sparsity_lab.model.sites import Site, Start, Tap
from sparsity_lab.model.transformer import Transformer


def with_residuals(
    model: Transformer, tokens_bt: Tensor, tap: Tap | None = None, start: Start | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits (b, t, v), and boundary → residual stream (b, t, d) there, as `tap`, if any, leaves it."""
    streams: dict[int, Tensor] = {}

    def record(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        x_btc = x_btc if tap is None else tap(site, layer, x_btc)
        if site is Site.RESID:
            streams[layer] = x_btc
        return x_btc

    return model(tokens_bt, record, start=start), streams
