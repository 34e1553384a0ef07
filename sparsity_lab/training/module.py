"""Lightning modules: a dense language model, and one whose weights are projected after every step.

A step: cross-entropy, gradient brought to unit root mean square, AdamW, and for the sparse module the
projection (Gao et al. 2025, §2.1, App. A.2). At kept fraction 1 the sparse module trains exactly as the
dense one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.checkpoints import count_weights
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.config import SparsityConfig, TrainerConfig
from sparsity_lab.training.schedules import kept_fraction, sharkfin
from sparsity_lab.training.sparsity.magnitude import fraction_for, project


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with a rate, a decay and a gradient scale of their own.

    `kept_fraction` gives the share of nonzero weights after a step, which the learning rate follows.
    """

    parameters: list[torch.nn.Parameter]
    learning_rate: float
    weight_decay: float
    kept_fraction: Callable[[int], float]


class DenseModule(lightning.LightningModule):
    """Trains a `Transformer` on windows of n_ctx + 1 tokens, int64 (batch, n_ctx + 1)."""

    def __init__(self, model: Transformer, config: TrainerConfig, n_steps: int) -> None:
        super().__init__()
        self.model, self.config, self.n_steps = model, config, n_steps
        self._measured: dict[str, Tensor | float] = {}

    def kept_fraction(self, step: int) -> float:
        """Scheduled share of nonzero weights after `step` optimizer steps."""
        return 1.0

    def loss(self, windows: Tensor, tap: Tap | None = None) -> Tensor:
        """Mean cross-entropy of each window's next tokens, in nats per token."""
        return self.model.loss(windows[:, :-1], windows[:, 1:], tap)

    def is_measured(self, step: int) -> bool:
        """Whether optimizer step `step`, from 1, leaves a row in the logs: first, last, every n-th."""
        return step in (1, self.n_steps) or step % self.config.log_every == 0

    def measured(self) -> dict[str, float]:
        """What the last measured step has shown; the weights are those after it."""
        self._measured[metrics.KEPT_FRACTION.name] = self.kept_fraction(self.global_step)
        self._measured[metrics.NONZEROS.name] = count_weights(self.model)[1]
        return {name: float(value) for name, value in self._measured.items()}

    def training_step(self, windows: Tensor, index: int) -> Tensor:
        logged = self.is_measured(self.global_step + 1)
        silent: list[Tensor] = []

        def tap(site: Site, layer: int, x: Tensor) -> Tensor:
            if site is Site.MLP_NEURON:
                silent.append((x == 0).flatten(0, -2).all(0))
            return x

        loss, terms = self.objective(windows, tap if logged else None)
        if self.config.ranks == 1:  # several must fail as one: what one rank finds is in all ranks' gradients
            self._require_finite("loss", loss)
        if logged:
            dead = torch.stack(silent).float()
            if self.config.ranks > 1:  # a neuron is silent on the batch if it is on every rank's share
                reduce = self.trainer.strategy.reduce
                terms = {name: reduce(term, reduce_op="mean") for name, term in terms.items()}
                dead = reduce(dead, reduce_op="min")
            self._measured = {**terms, metrics.DEAD_NEURONS.name: dead.sum()}
        return loss

    def objective(self, windows: Tensor, tap: Tap | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and by name what is logged of it; `tap` watches the model on the batch."""
        loss = self.loss(windows, tap)
        return loss, {metrics.TRAIN_LOSS.name: loss.detach()}

    def groups(self) -> list[ParameterGroup]:
        """What is trained; the first group is the model's own parameters."""
        config = self.config
        model = list(self.model.parameters())
        return [ParameterGroup(model, config.learning_rate, config.weight_decay, self.kept_fraction)]

    def scale_gradients(self) -> list[Tensor]:
        """Normalise or clip each group's gradients in place; their root mean squares before that."""
        before = []
        for group in self.groups():
            rms = gradient_rms(group.parameters)
            scale = rms if self.config.gradient == "normalise" else rms.clamp(min=1)
            gradients = [p.grad for p in group.parameters if p.grad is not None]
            torch._foreach_div_(gradients, scale.clamp(min=1e-12))
            before.append(rms)
        return before

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        all_rms = self.scale_gradients()
        for rms in all_rms:
            self._require_finite("gradient", rms)  # before it reaches what the next checkpoint holds
        if self.is_measured(self.global_step + 1):
            self._measured[metrics.GRADIENT_RMS.name] = all_rms[0]
            self._measured[metrics.LEARNING_RATE.name] = optimizer.param_groups[0]["lr"]

    def _require_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise UserError(
                f"training: {what} is {value.item()} at step {self.global_step}: "
                "lower trainer.learning_rate; the last checkpoint is kept"
            )

    def validation_step(self, windows: Tensor, index: int) -> None:  # every rank sees all windows
        final: list[Tensor] = []

        def tap(site: Site, layer: int, x: Tensor) -> Tensor:
            if site is Site.RESID and layer == 2 * self.model.config.n_layer:
                final.append(x)
            return x

        loss = self.loss(windows, tap)
        measured: dict[str, float | Tensor] = {
            metrics.STEP.name: float(self.global_step),
            metrics.VALIDATION_LOSS.name: loss,
            metrics.KURTOSIS.name: kurtosis(final[0]).mean(),
        }
        self.log_dict(measured, on_epoch=True, batch_size=len(windows), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config, groups = self.config, self.groups()
        optimizer = torch.optim.AdamW(
            [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups],
            betas=config.betas,
            eps=config.eps,
            fused=config.fused,
        )

        def factor(group: ParameterGroup, step: int) -> float:
            progress = min(1.0, (step + 1) / (self.n_steps + 1))
            return sharkfin(progress, config.warmup, group.kept_fraction(step))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(factor, group) for group in groups])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SparseModule(DenseModule):
    """Projects the weights after every optimizer step; the kept fraction is annealed from 1."""

    def __init__(
        self, model: Transformer, config: TrainerConfig, n_steps: int, sparsity: SparsityConfig
    ) -> None:
        super().__init__(model, config, n_steps)
        self.sparsity = sparsity
        weights = model.sparse_weights().values()
        total = sum(weight.numel() for weight, _ in weights)
        if sparsity.nonzeros is not None and sparsity.nonzeros > total:
            raise UserError(f"sparsity.nonzeros: {sparsity.nonzeros}: this model has {total} weights")
        self.target = sparsity.kept_fraction or fraction_for(weights, sparsity.nonzeros or total)

    def kept_fraction(self, step: int) -> float:
        return kept_fraction(step / self.n_steps, self.target, self.sparsity.anneal_until)

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        configured["optimizer"].register_step_post_hook(lambda *_: self.project_weights())
        return configured

    def project_weights(self) -> None:
        """Zero all weights but those that the schedule keeps after this step."""
        kept = self.kept_fraction(self.global_step + 1)
        for weight, axis in self.model.sparse_weights().values():
            project(weight, kept, axis, self.sparsity.at_least)


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())


def gradient_rms(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Root mean square over all entries of all gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    return norms.norm() / sum(g.numel() for g in gradients) ** 0.5


def kurtosis(x_btd: Tensor) -> Tensor:
    """Kurtosis over channels at each position, (b, t): 3 for a Gaussian, more where few channels dominate."""
    centred = x_btd.float() - x_btd.float().mean(-1, keepdim=True)
    return centred.pow(4).mean(-1) / centred.pow(2).mean(-1).pow(2)
