"""Training objectives. A `LanguageModule` combines an objective with a sparsity method."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.core import metrics
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.transformer import Transformer


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with their own learning rate, weight decay and gradient scale.

    `divided_by_root_kept_fraction`: whether the learning rate is divided by sqrt(kept fraction).
    """

    parameters: list[torch.nn.Parameter]
    learning_rate: float
    weight_decay: float
    divided_by_root_kept_fraction: bool


class Objective(Protocol):
    """A loss of the model on a batch. An objective with its own parameters or buffers is an `nn.Module`."""

    def __call__(
        self, model: Transformer, windows: Tensor, step: int, tap: Tap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, and the terms to log by metric name.

        `windows` are int64 (batch, n_ctx + 1). `step` is the number of completed optimizer steps. `tap` must
        be passed to the model.
        """

    def groups(self) -> list[ParameterGroup]:
        """List the parameter groups that are trained in addition to the model's."""


class NextToken:
    """Next-token cross-entropy in nats per token."""

    def __call__(
        self, model: Transformer, windows: Tensor, step: int, tap: Tap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = model.loss(windows[:, :-1], windows[:, 1:], tap)
        return loss, {metrics.TRAIN_LOSS.name: loss.detach()}

    def groups(self) -> list[ParameterGroup]:
        return []


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats per token."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())
