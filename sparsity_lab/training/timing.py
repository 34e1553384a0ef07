"""Time training steps at any moment of a schedule, without Lightning's trainer and on random tokens.

A training's cost changes along its schedule: many nonzeros first, few later, a whole gradient now and then.
Speed depends on how many weights are zero, not on which, so random weights and tokens serve as well.
"""

import time
from collections.abc import Callable

import torch

from sparsity_lab.kernels.machine import number_format
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.listed.amortised import Amortised
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.objective import NextToken, Objective
from sparsity_lab.training.sparsity import make_sparsifier
from sparsity_lab.training.sparsity.sparsifier import Sparsifier, SparsifierConfig

POINTS = 8  # moments, in the middle of equal parts of the training


class Timed(LanguageModule):
    """Takes optimizer steps without a Lightning trainer, which otherwise counts them."""

    done = 0

    @property
    def global_step(self) -> int:
        return self.done


class TimedTraining:
    """A training that can be put at any moment of its schedule.

    `period` steps are a whole round of the method; whole gradients come once in it.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        sparsifier: Sparsifier,
        config: TrainerConfig,
        n_steps: int,
        period: int = 1,
    ) -> None:
        self.n_steps, self.period = n_steps, period
        self.module = Timed(model, objective, sparsifier, config, n_steps)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.windows = (config.batch_size, model.config.n_ctx + 1)
        self.bfloat16 = number_format(config.precision) == "bfloat16"
        self.generator = torch.Generator().manual_seed(0)

    def go_to(self, progress: float) -> None:
        """Bring the weights to what they are like after this share of the training."""
        module, before = self.module, self.module.done
        module.done = round(progress * self.n_steps)
        if isinstance(module.sparsifier, Amortised):
            module.sparsifier.steps = module.done
        module.sparsifier.after_step(module.model, module.done)
        kept = module.sparsifier.kept_fraction
        if self.period > 1 and kept(before) != kept(module.done):
            for _ in range(self.period):  # renews the lists, for which one window is enough
                self.step(1)

    def step(self, batch_size: int | None = None) -> None:
        """Take a step on new windows, as many as the config says or `batch_size`."""
        shape = (batch_size or self.windows[0], self.windows[1])
        windows = torch.randint(self.module.model.vocab_size, shape, generator=self.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss, _ = self.module.objective(self.module.model, windows, self.module.done, None)
        loss.backward()
        self.module.scale_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.done = min(self.module.done + 1, self.n_steps - 1)

    def seconds_a_step(self, at_least: float, clock: Callable[[], float] = time.perf_counter) -> float:
        """Time steps for at least this many seconds of `clock`, in whole periods."""
        began, steps = clock(), 0
        while True:
            for _ in range(self.period):
                self.step()
            steps += self.period
            if (passed := clock() - began) >= at_least:
                return passed / steps


def tokens_per_core_second(
    model: Transformer, sparsity: SparsifierConfig, trainer: TrainerConfig, seconds: float = 1.0
) -> float:
    """Return the mean speed over a whole training, from steps timed for `seconds` at each of POINTS moments.

    The clock is the processor time of this process, so other processes hardly matter. Moments of the same
    kept fraction are alike, and timed once.
    """
    n_ctx = model.config.n_ctx
    n_steps = max(trainer.steps(n_ctx), 2 * POINTS)
    period = getattr(sparsity, "dense_every", 1)
    sparsifier = make_sparsifier(sparsity, model, n_steps, 0)
    training = TimedTraining(model, NextToken(), sparsifier, trainer, n_steps, period)
    training.step()  # the first step creates the optimizer's state and compiles kernels
    found: dict[float, float] = {}
    costs = []
    for point in range(POINTS):
        progress = (point + 0.5) / POINTS
        kept = sparsifier.kept_fraction(round(progress * n_steps))
        if kept not in found:
            training.go_to(progress)
            found[kept] = training.seconds_a_step(seconds, time.process_time)
        costs.append(found[kept])
    return trainer.batch_size * n_ctx * POINTS / sum(costs)
