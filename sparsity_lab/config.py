"""A run's whole config: each room's own part, composed by Hydra and validated once, at the door."""

from typing import Annotated

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, PositiveInt, model_validator

from sparsity_lab.base import Config, UserError, validate
from sparsity_lab.circuits.pruning import PruningConfig
from sparsity_lab.circuits.task import TasksConfig
from sparsity_lab.data.corpora import CorpusConfig
from sparsity_lab.data.tokenizer import TokenizerConfig
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.training.modules import SparsityConfig, TrainerConfig


class RunConfig(Config):
    """One point of a sweep, or a run by itself.

    `root` is the folder that everything is written below, `sweep` the sweep's name, if any, `threads` how
    many cores the run may use (null: all), `seed` what every random choice is derived from.
    """

    seed: Annotated[int, Field(ge=0)]
    root: str
    sweep: str | None
    threads: PositiveInt | None
    corpus: Annotated[CorpusConfig, Field(discriminator="kind")]
    tokenizer: Annotated[TokenizerConfig, Field(discriminator="kind")]
    model: ModelConfig
    sparsity: SparsityConfig
    trainer: TrainerConfig
    tasks: TasksConfig
    pruning: PruningConfig
    logger: LoggerConfig

    @model_validator(mode="after")
    def _fits(self) -> "RunConfig":
        vocab_size = getattr(self.tokenizer, "vocab_size", None)
        if self.sparsity.nonzeros is not None and vocab_size is not None:
            with torch.device("meta"):
                model = Transformer(self.model, vocab_size)
            total = sum(weight.numel() for weight, _ in model.sparse_weights().values())
            if self.sparsity.nonzeros > total:
                raise ValueError(
                    f"sparsity.nonzeros {self.sparsity.nonzeros} is more than the model's {total} weights"
                )
        return self

    @property
    def name(self) -> str:
        """What tells this run from others of its sweep, for people: kind, width, depth, nonzero weights."""
        size = self.sparsity.nonzeros or self.sparsity.kept_fraction
        kept = "" if size is None else f"-{size:g}" if isinstance(size, float) else f"-n{size}"
        return f"{self.sparsity.kind}-d{self.model.d_model}-l{self.model.n_layer}{kept}"


def from_hydra(config: DictConfig) -> RunConfig:
    """Validate what Hydra composed.

    Raises:
        UserError: one line for each value that is missing, unknown, of the wrong type, or that doesn't fit
            the others.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(key + str(error).splitlines()[0]) from None
    if missing:
        raise UserError("\n".join(f"{key}: missing" for key in missing))
    return validate(RunConfig, plain)
