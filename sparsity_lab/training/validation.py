"""Validation metrics of every model: held-out loss, and kurtosis of the final residual stream.

Shapes: b and w windows, t positions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.core import metrics
from sparsity_lab.data.validation_text import ValidationText
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer


@torch.no_grad()
def measure_windows(model: Transformer, windows_bc: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss in nats of each target (b, t), and the kurtosis of each window (b), in float32."""
    final: list[Tensor] = []

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is Site.RESID and layer == 2 * model.config.n_layer:
            final.append(x)
        return x

    logits_btv = model(windows_bc[:, :-1], tap)
    rows = zip(logits_btv, windows_bc[:, 1:], strict=True)  # one at a time: a large vocabulary takes memory
    losses_bt = torch.stack([F.cross_entropy(x_tv.float(), y_t, reduction="none") for x_tv, y_t in rows])
    return losses_bt, kurtosis(final[0]).mean(1)


def validation_metrics(losses_wt: Tensor, kurtosis_w: Tensor, text: ValidationText) -> dict[str, float]:
    """Return the metrics of all windows of `text`, by name.

    The losses of components that have a metric are reported beside that of the mixture.
    """
    estimates = text.estimates(losses_wt.cpu().numpy())
    found = {
        metrics.VALIDATION_LOSS.name: estimates[""].loss,
        metrics.VALIDATION_ERROR.name: estimates[""].error,
        metrics.KURTOSIS.name: float(kurtosis_w.double().mean()),
    }
    for name in estimates.keys() & set(metrics.COMPONENTS):
        found[metrics.COMPONENT_LOSS[name].name] = estimates[name].loss
        found[metrics.COMPONENT_ERROR[name].name] = estimates[name].error
    return found


def validate_model(
    model: Transformer,
    text: ValidationText,
    batch_size: int,
    precision: str = "32-true",
    device: str = "cpu",
) -> dict[str, float]:
    """Measure a model on all windows of `text`, `batch_size` at a time, as a training does.

    `precision` is Lightning's name, "32-true" or "bf16-mixed". The model stays on `device`.
    """
    model.to(device)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        batches = text.windows_wc.split(batch_size)
        measured = [measure_windows(model, windows_bc.to(device)) for windows_bc in batches]
    losses, kurtoses = zip(*measured, strict=True)
    return validation_metrics(torch.cat(losses), torch.cat(kurtoses), text)


def kurtosis(x_btd: Tensor) -> Tensor:
    """Return the kurtosis over channels at each position (b, t).

    It is 3 for a Gaussian, and larger if a few channels dominate. Where all channels are equal, as in a model
    of very few weights, it is 1, its least value.
    """
    centred = x_btd.float() - x_btd.float().mean(-1, keepdim=True)
    largest = centred.abs().amax(-1, keepdim=True)
    unit = centred / torch.where(largest > 0, largest, 1)  # a small stream's fourth powers would be 0
    variance = unit.pow(2).mean(-1)
    return torch.where(variance > 0, unit.pow(4).mean(-1) / variance.pow(2), 1.0)
