"""What a training minimises. An objective and a sparsity method together make a `LanguageModule`."""

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
    """Parameters with a learning rate, a weight decay and a gradient scale of their own.

    `divided_by_root_kept_fraction`: whether the learning rate is multiplied by 1 / sqrt(kept fraction).
    """

    parameters: list[torch.nn.Parameter]
    learning_rate: float
    weight_decay: float
    divided_by_root_kept_fraction: bool


class Objective(Protocol):
    """A loss of the model on a batch. One that has parameters or buffers of its own is an `nn.Module`."""

    def __call__(
        self, model: Transformer, windows: Tensor, step: int, tap: Tap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and the terms to log, by metric name.

        `windows` are int64 (batch, n_ctx + 1). `step` counts the optimizer steps done so far. `tap` watches
        the model on the batch.
        """

    def groups(self) -> list[ParameterGroup]:
        """Parameters that are trained besides the model's."""


class NextToken:
    """Cross-entropy of each window's next tokens, in nats per token."""

    def __call__(
        self, model: Transformer, windows: Tensor, step: int, tap: Tap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = model.loss(windows[:, :-1], windows[:, 1:], tap)
        return loss, {metrics.TRAIN_LOSS.name: loss.detach()}

    def groups(self) -> list[ParameterGroup]:
        return []


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())
