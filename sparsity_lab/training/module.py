"""The Lightning module that trains a language model with an objective and a sparsity method.

A step (Gao et al. 2025, §2.1, App. A.2):
1. The objective computes the loss, by default next-token cross-entropy (`objective.NextToken`).
2. The gradient of each parameter group is scaled to root mean square 1.
3. AdamW updates the weights. Its learning rate follows the sharkfin schedule, divided by √(kept fraction).
4. The sparsifier changes the weights; the paper's method projects them (`sparsity/magnitude.py`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.checkpoints import count_weights
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.objective import Objective, ParameterGroup
from sparsity_lab.training.sparsity.sparsifier import PartGradient, SelfUpdating, Sparsifier
from sparsity_lab.training.validation import measure_windows, validation_metrics


class LanguageModule(lightning.LightningModule):
    """Trains a `Transformer` on windows of n_ctx + 1 tokens, int64 (batch, n_ctx + 1).

    An `objective` or `sparsifier` that is an `nn.Module` becomes a submodule: its parameters move to the
    device, and checkpoints contain its state.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        sparsifier: Sparsifier,
        config: TrainerConfig,
        n_steps: int,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.sparsifier = model, objective, sparsifier
        self.config, self.n_steps = config, n_steps
        self._measured: dict[str, Tensor | float] = {}
        self._validated: list[tuple[Tensor, Tensor]] = []
        if isinstance(sparsifier, SelfUpdating):
            names = [f"model.{name}" for name in sparsifier.updated_names()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)

    def is_measured(self, step: int) -> bool:
        """Whether optimizer step `step` (from 1) is logged: the first, the last and every `log_every`-th."""
        return step in (1, self.n_steps) or step % self.config.log_every == 0

    def measured(self) -> dict[str, float]:
        """Return the metrics of the last measured step; those of the weights are taken after the step."""
        self._measured[metrics.KEPT_FRACTION.name] = self.sparsifier.kept_fraction(self.global_step)
        self._measured[metrics.NONZEROS.name] = count_weights(self.model)[1]
        return {name: float(value) for name, value in self._measured.items()}

    def training_step(self, windows: Tensor, index: int) -> Tensor:
        logged = self.is_measured(self.global_step + 1)
        silent: list[Tensor] = []

        def tap(site: Site, layer: int, x: Tensor) -> Tensor:
            if site is Site.MLP_NEURON:
                silent.append((x == 0).flatten(0, -2).all(0))
            return x

        loss, terms = self.objective(self.model, windows, self.global_step, tap if logged else None)
        if self.config.ranks == 1:  # several ranks must fail together; their shared gradient is checked below
            self._require_finite("loss", loss)
        if logged:
            dead = torch.stack(silent).float()
            if self.config.ranks > 1:  # a neuron is silent on the batch if it is silent on every rank
                reduce = self.trainer.strategy.reduce
                terms = {name: reduce(term, reduce_op="mean") for name, term in terms.items()}
                dead = reduce(dead, reduce_op="min")
            self._measured = {**terms, metrics.DEAD_NEURONS.name: dead.sum()}
        return loss

    def groups(self) -> list[ParameterGroup]:
        """List all trained parameter groups; the first holds the model's own parameters."""
        config = self.config
        own = ParameterGroup(
            list(self.model.parameters()),
            config.learning_rate,
            config.weight_decay,
            divided_by_root_kept_fraction=True,
        )
        return [own, *self.objective.groups()]

    def scale_gradients(self) -> list[Tensor]:
        """Normalise or clip each group's gradients in place; returns their previous root mean squares."""
        before = []
        parts = self.sparsifier.collect() if isinstance(self.sparsifier, SelfUpdating) else []
        for group in self.groups():
            rms = gradient_rms(group.parameters, parts)
            scale = rms if self.config.gradient == "normalise" else rms.clamp(min=1)
            gradients = [p.grad for p in group.parameters if p.grad is not None]
            gradients += [part.gradient for part in parts]
            parts = []  # they belong to the first group, the model's own
            torch._foreach_div_(gradients, scale.clamp(min=1e-12))
            before.append(rms)
        return before

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Scale the gradients; Lightning calls this between the backward pass and the optimizer's step."""
        all_rms = self.scale_gradients()
        for rms in all_rms:
            self._require_finite("gradient", rms)  # before it reaches weights that a checkpoint would save
        if self.is_measured(self.global_step + 1):
            self._measured[metrics.GRADIENT_RMS.name] = all_rms[0]
            self._measured[metrics.LEARNING_RATE.name] = optimizer.param_groups[0]["lr"]

    def _require_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise UserError(
                f"training: {what} is {value.item()} at step {self.global_step}: "
                "lower trainer.learning_rate; the last checkpoint is kept"
            )

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, windows: Tensor, index: int) -> None:  # every rank sees all windows
        self._validated.append(measure_windows(self.model, windows))

    def on_validation_epoch_end(self) -> None:
        losses, kurtoses = zip(*self._validated, strict=True)
        text = self.trainer.datamodule.validation_text()  # type: ignore[attr-defined]
        measured = validation_metrics(torch.cat(losses), torch.cat(kurtoses), text)
        self.log_dict({metrics.STEP.name: float(self.global_step), **measured}, sync_dist=True)

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
            kept = self.sparsifier.kept_fraction(step) if group.divided_by_root_kept_fraction else 1.0
            return sharkfin(progress, config.warmup, kept)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(factor, group) for group in groups])
        # The learning rate uses the kept fraction before this step, the sparsifier the one after it.
        # Lightning increments global_step only after this hook, hence the + 1.
        optimizer.register_step_post_hook(self._after_update)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _after_update(self, optimizer: torch.optim.Optimizer, *args: Any) -> None:
        if isinstance(self.sparsifier, SelfUpdating):
            self.sparsifier.update(optimizer)
        self.sparsifier.after_step(self.model, self.global_step + 1)


def gradient_rms(parameters: list[torch.nn.Parameter], parts: Sequence[PartGradient] = ()) -> Tensor:
    """Return the root mean square over all entries of all gradients; `parts` stand for whole gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = list(torch._foreach_norm(gradients))
    norms += [part.gradient.norm() * part.whole_to_part**0.5 for part in parts]
    numel = sum(g.numel() for g in gradients) + sum(part.numel for part in parts)
    return torch.stack(norms).norm() / numel**0.5


def sharkfin(progress: float, warmup: float, kept: float) -> float:
    """Return the learning-rate factor: linear warm-up and linear decay to 0, times 1 / sqrt(kept fraction).

    Without the last factor, annealing the weights does not help (Fig. 25).
    """
    rising = progress / warmup if warmup > 0 else 1.0
    falling = (1 - progress) / (1 - warmup)
    return min(rising, falling) / kept**0.5
