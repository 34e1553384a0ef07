"""Settings of circuit finding that all finders share, and those of mask learning. No torch here."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from sparsity_lab.core.config import Config

Selection = Literal["raw", "calibrated"]


class PruningConfig(Config):
    """The target of a circuit, and what happens to it after a finder has found it.

    `target` (nats) is the loss at which models are compared; `targets` give the curve. `selection`: whether
    the raw or the calibrated loss must meet the target. A fitted scale and shift can turn noise into an
    answer, so the calibrated loss finds small circuits for nonsense too (`evidence/controls.py`). `polish`:
    drop kept nodes that can go. `edges` "prune": then also prune edges between the kept nodes.
    """

    selection: Selection = "raw"
    target: PositiveFloat = 0.15
    targets: tuple[PositiveFloat, ...] = Field(default=(0.15, 0.3, 0.5), strict=False)  # a list from YAML too
    polish: bool = True
    edges: Literal["all", "prune"] = "all"
    seed: int = 0

    @field_validator("targets")
    @classmethod
    def _sorted(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if not targets or list(targets) != sorted(set(targets)):
            raise ValueError("must be one or more losses in nats, ascending, each once")
        return targets

    @property
    def all_targets(self) -> tuple[float, ...]:
        """Every target, the main one included, ascending."""
        return tuple(sorted({*self.targets, self.target}))


class MaskLearningConfig(Config):
    """Settings of `mask_learning.py`.

    `pairs`: pairs of prompts in a step. `warmup`: fraction of the steps. `start` "noise" is the paper's: all
    gates alike but for noise. `penalty` "fixed" is the paper's; "target" adapts the coefficient so that the
    loss stays at `target` (nats). `k_coef`: the coefficient, the first one if it adapts; `rate`: by how much
    its logarithm may rise in a step. `drop_below`: nodes of smaller tau are dropped for good, every
    `drop_every` steps (-1: never). `restore`: in every other step a random subset of the shut nodes is
    restored, each with a probability drawn up to this (0: none), or with `adversarial` those of them that
    raise the loss, by the gradient of an earlier step. `give_up` (nats): training ends if the smoothed loss
    is above twice this after an eighth of the steps, or above it after a quarter; null: never.
    """

    steps: PositiveInt = 200
    pairs: PositiveInt = 16
    learning_rate: PositiveFloat = 0.03
    warmup: NonNegativeFloat = 0.05
    weight_decay: NonNegativeFloat = 1e-3
    beta2: float = Field(default=0.95, ge=0, lt=1)
    temperature: PositiveFloat = 1.0
    noise_scale: NonNegativeFloat = 0.01
    noise_bias: float = 0.1
    start: Literal["attribution", "noise"] = "attribution"
    k_coef: PositiveFloat = 1e-3
    penalty: Literal["target", "fixed"] = "target"
    target: PositiveFloat = 0.1
    rate: float = 0.05
    drop_below: float = -0.5
    drop_every: PositiveInt = 25
    restore: float = Field(default=0.0, ge=0, le=1)
    adversarial: bool = False
    give_up: PositiveFloat | None = None
