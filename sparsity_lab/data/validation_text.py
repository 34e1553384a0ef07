"""The fixed validation windows of a folder of tokens, and losses on them by component, with standard errors.

Shapes: w windows, t positions, c = t + 1 tokens of a window.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sparsity_lab.data.packed import fixed_windows, open_tokens, read_components

CLUSTER = 8  # neighbouring windows, which share documents
MIN_CLUSTERS = 30  # with fewer, each window is a cluster by itself


class Estimate(NamedTuple):
    """A mean loss and its standard error, in nats per token."""

    loss: float
    error: float


@dataclass(frozen=True)
class ValidationText:
    """Windows (w, c) int64, the component of each target (w, t), and the components' names."""

    windows_wc: torch.Tensor
    component_wt: npt.NDArray[np.uint8]
    names: tuple[str, ...]

    def estimates(self, losses_wt: npt.NDArray[np.floating]) -> dict[str, Estimate]:
        """Estimate the mean loss of each component that occurs, and that of the mixture under the key "".

        `losses_wt` are the targets' losses. The standard errors count clusters of neighbouring windows as
        the independent observations. The mixture's proportions are given by the split, so that its error is
        that within the components (stratified sampling).
        """
        losses_wt = losses_wt.astype(np.float64)
        cluster_w = np.arange(len(losses_wt)) // (CLUSTER if len(losses_wt) >= CLUSTER * MIN_CLUSTERS else 1)
        found: dict[str, Estimate] = {}
        residual, total = np.zeros(1), losses_wt.size
        for i, name in enumerate(self.names):
            is_in_wt = self.component_wt == i
            if not (count := int(is_in_wt.sum())):
                continue
            loss = float(losses_wt[is_in_wt].sum() / count)
            deviations_w = np.where(is_in_wt, losses_wt - loss, 0).sum(1)
            deviations = np.bincount(cluster_w, deviations_w).astype(np.float64)
            residual = residual + deviations
            found[name] = Estimate(loss, _error(deviations, count))
        return {**found, "": Estimate(float(losses_wt.mean()), _error(residual, total))}


def validation_text(folder: Path, n_ctx: int, n_windows: int) -> ValidationText:
    """Read the windows of `packed.fixed_windows`, and their targets' components.

    Raises:
        UserError: the folder is damaged, or the split is too short for a window.
    """
    names, component_n = read_components(folder)
    windows_wc = fixed_windows(open_tokens(folder, "validation").tokens, n_ctx, n_windows)
    component_wc = fixed_windows(component_n, n_ctx, n_windows).numpy().astype(np.uint8)
    return ValidationText(windows_wc, component_wc[:, 1:], names)


def _error(deviations: npt.NDArray[np.float64], count: int) -> float:
    """Standard error of a ratio of sums over clusters, from `deviations` that sum to zero; 0 for one."""
    n = len(deviations)
    return float(np.sqrt((deviations**2).sum() * n / (n - 1)) / count) if n > 1 else 0.0
