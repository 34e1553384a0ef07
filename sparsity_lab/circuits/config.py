"""Settings that all circuit finders share, and the settings of mask learning. Imports no torch."""

from typing import ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from sparsity_lab.core.config import Config, GrowingConfig

Selection = Literal["raw", "calibrated"]
Ablation = Literal["mean", "zero", "task_mean", "other_prompt"]


class PruningConfig(GrowingConfig):
    """Target losses of the circuits, and the steps that follow a finder.

    `target` (nats) is the loss at which models are compared; `targets` are the losses of the size curve. It
    is a mean over prompts, so a pair's two losses add up to twice the target.
    `relative_targets` (nats) come on top of the whole model's own loss, each with a circuit of its own.
    `selection`: whether the raw or the calibrated loss must meet the target. A fitted scale and shift can
    turn noise into an answer, so the calibrated loss also finds small circuits for meaningless tasks
    (`evidence/controls.py`). `polish`: drop kept nodes that the target does not need. `edges`: "prune" also
    prunes edges between the kept nodes. `tokens`: "prune" also prunes the tokens whose embeddings are
    read (`token_pruning.py`). `closed`: weights into dropped nodes are zero while circuits are
    searched and scored, so that a circuit computes from its nodes and edges alone (`closing.py`). `ablation`:
    the value at which dropped nodes are frozen: their mean over text, zero, their mean over the task's
    training prompts, where what all its prompts share stays known (`frozen.py`), or their value on the pair's
    other prompt (`beside_whole.py`). `freeze_norm`: norms divide by their scale in the whole model's run
    (`beside_whole.py`). `tied_query_key`: one mask for a query channel and its key channel (`tying.py`).
    `starts`: searches with different seeds, of which the smallest circuit is kept. `exchanges`: rounds of
    exchange after polish, in which dropped nodes may come back (`exchange.py`). `nested`: a looser target's
    circuit is part of every tighter one's (`nested.py`). `retries`: further searches after one that may have
    failed (`failed_search.py`), with other seeds and more steps.
    """

    later_fields: ClassVar = ("freeze_norm", "tied_query_key", "starts", "exchanges", "nested", "tokens")

    selection: Selection = "raw"
    target: PositiveFloat = 0.15
    targets: tuple[PositiveFloat, ...] = Field(default=(0.15, 0.3, 0.5), strict=False)  # a list from YAML too
    relative_targets: tuple[PositiveFloat, ...] = Field(default=(), strict=False)
    polish: bool = True
    edges: Literal["all", "prune"] = "all"
    tokens: Literal["all", "prune"] = "all"
    closed: bool = True
    ablation: Ablation = "mean"
    freeze_norm: bool = False
    tied_query_key: bool = False
    starts: PositiveInt = 1
    exchanges: NonNegativeInt = 0
    nested: bool = False
    retries: NonNegativeInt = 2
    seed: int = 0

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if not targets:
            raise ValueError("must be one or more losses in nats, ascending, each once")
        return targets

    @field_validator("targets", "relative_targets")
    @classmethod
    def _sorted(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if list(targets) != sorted(set(targets)):
            raise ValueError("must be losses in nats, ascending, each once")
        return targets

    @model_validator(mode="after")
    def _frozen_nodes_differ(self) -> Self:
        """Check the settings that allow one frozen value for all prompts, and no other."""
        if self.ablation == "other_prompt" and self.selection == "calibrated":
            raise ValueError(
                "selection: 'calibrated': with ablation other_prompt, no nodes give the other answer, and a "
                "negative scale would make it right; allowed: raw"
            )
        for key in ("edges", "tokens"):
            if self.ablation == "other_prompt" and getattr(self, key) == "prune":
                raise ValueError(
                    f"{key}: 'prune': what is dropped passes a mean; with ablation other_prompt, allowed: all"
                )
        return self

    @model_validator(mode="after")
    def _pruned_parts_nest(self) -> Self:
        for key in ("edges", "tokens"):
            if self.nested and getattr(self, key) == "prune":
                raise ValueError(f"{key}: 'prune': with nested, {key} left over need not nest; allowed: all")
        return self

    @model_validator(mode="after")
    def _exchanges_polish(self) -> Self:
        if self.exchanges and not self.polish:
            raise ValueError("exchanges: an exchange polishes; with polish false, allowed: 0")
        return self

    @property
    def changed(self) -> dict[str, bool | int]:
        """Settings of the search that a circuit's provenance has if they are not the default ones."""
        fields = ("freeze_norm", "tied_query_key", "starts", "exchanges", "nested")
        usual = type(self).model_fields
        return {key: value for key in fields if (value := getattr(self, key)) != usual[key].default}

    @property
    def needs_whole_run(self) -> bool:
        """Whether a circuit is evaluated beside the whole model's run (`beside_whole.py`)."""
        return self.freeze_norm or self.ablation == "other_prompt"

    @property
    def all_targets(self) -> tuple[float, ...]:
        """Every target, the main one included, ascending."""
        return tuple(sorted({*self.targets, self.target}))


class MaskLearningConfig(Config):
    """Settings of `mask_learning.py`.

    `pairs`: pairs of prompts per step.
    `warmup`: learning-rate warm-up, as a fraction of the steps.
    `start`: "noise" (the paper's) starts all gates at one value plus noise; "attribution" orders them.
    `penalty`: "fixed" (the paper's) keeps the coefficient; "target" adapts it so that the loss stays at
    `target` (nats).
    `k_coef`: the penalty's coefficient; its initial value if it adapts.
    `rate`: the largest rise of the coefficient's logarithm in one step.
    `drop_below`: every `drop_every` steps, nodes whose tau is below this are dropped for good; -1 drops none.
    `restore`: upper bound of the probability with which each shut node is restored in every other step; 0
    restores none. With `adversarial`, only nodes that raised the loss, by an earlier step's gradient, are.
    `give_up` (nats): training stops early if the smoothed loss is above twice this after an eighth of the
    steps, or above it after a quarter; null never stops early.
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
