"""Settings of the optimisation. Imports neither torch nor Lightning."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from sparsity_lab.core.config import Config

Precision = Literal["auto", "float32", "bfloat16"]


class TrainerConfig(Config):
    """Settings of the optimisation.

    `tokens`: length of the training, which takes tokens // (batch_size · n_ctx) steps.
    `gradient`: "normalise" scales every gradient to root mean square 1; "clip" scales only those above 1.
    `precision`: "auto" is bfloat16 autocast on processors with native bfloat16, and float32 elsewhere.
    `validation_windows`: windows of each of the `validations` during training, of the nodes' means and of the
    evidence. `final_windows`: windows of the trained model's loss.
    `start`: "reference" continues from the weights of the run's reference model.
    `devices`: devices on each of the `num_nodes` machines. They share the `batch_size` windows of each step
    (`training.ranks`).
    `workers`: processes that load batches for each device; 0 loads them in the training process.
    `pin_memory`: pin host memory; only matters on a GPU.
    `fused`: use the fused AdamW.
    """

    tokens: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    warmup: float = 0.01
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: PositiveFloat = 0.1
    gradient: Literal["normalise", "clip"] = "normalise"
    precision: Precision = "auto"
    start: Literal["scratch", "reference"] = "scratch"
    validation_windows: PositiveInt = 256
    final_windows: PositiveInt = 4096
    validations: PositiveInt = 4
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 20
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = 1
    num_nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp"] = "auto"
    fused: bool = True
    workers: NonNegativeInt = 0
    pin_memory: bool = True

    @field_validator("strategy", mode="before")
    @classmethod
    def _whole_tensors(cls, strategy: object) -> object:
        if isinstance(strategy, str) and "fsdp" in strategy:
            raise ValueError(
                "fsdp cuts tensors into shards, and projection needs a tensor's weights side by side; "
                "allowed: auto, ddp"
            )
        return strategy

    @model_validator(mode="after")
    def _shares(self) -> "TrainerConfig":
        if self.batch_size % self.ranks:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of devices · num_nodes, {self.ranks}"
            )
        return self

    @property
    def ranks(self) -> int:
        """Number of processes that train one model together."""
        return self.devices * self.num_nodes

    def steps(self, n_ctx: int) -> int:
        """Number of optimizer steps."""
        return max(1, self.tokens // (self.batch_size * n_ctx))
