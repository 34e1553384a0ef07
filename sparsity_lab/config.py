"""A run's whole config: each room's own part, composed by Hydra and validated once, at the door."""

from pathlib import Path
from typing import Annotated

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from pydantic import Field, PositiveInt, model_validator

from sparsity_lab.bridges.config import BridgeConfig, SteeringConfig
from sparsity_lab.circuits.evaluator import PruningConfig
from sparsity_lab.circuits.snapshots import CircuitsConfig
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.corpora import CorpusConfig
from sparsity_lab.data.tokenizers import TokenizerConfig
from sparsity_lab.evidence.config import ValidationConfig
from sparsity_lab.importers.imported import ExistingConfig
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.record import Kind
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.training.config import SparsityConfig, TrainerConfig


class DenseConfig(Config):
    """An existing dense model: a run's model `folder`, a model from elsewhere, or one to train here first."""

    folder: str | None = None
    model: Annotated[ModelConfig | ExistingConfig | None, Field(discriminator="kind")] = None
    trainer: TrainerConfig | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "DenseConfig":
        if (self.folder is None) == (self.model is None):
            raise ValueError("give either folder or model")
        if isinstance(self.model, ModelConfig) != (self.trainer is not None):
            raise ValueError("give trainer with a model that is to be trained, and with no other")
        return self


class RunConfig(Config):
    """One job of a sweep, or a run by itself.

    `root` is the folder that everything is written below, `sweep` the sweep's name, if any, `threads` how
    many cores the run may use (null: all), `seed` what every random choice is derived from.
    """

    seed: Annotated[int, Field(ge=0)]
    root: str
    sweep: str | None
    threads: PositiveInt | None
    corpus: Annotated[CorpusConfig, Field(discriminator="kind")]
    tokenizer: Annotated[TokenizerConfig, Field(discriminator="kind")]
    model: Annotated[ModelConfig | ExistingConfig, Field(discriminator="kind")]
    sparsity: SparsityConfig
    trainer: TrainerConfig
    dense: DenseConfig | None = None
    bridge: BridgeConfig | None = None
    tasks: TasksConfig
    pruning: PruningConfig
    circuits: CircuitsConfig
    steering: SteeringConfig | None = None
    validation: ValidationConfig
    logger: LoggerConfig

    @model_validator(mode="after")
    def _fits(self) -> "RunConfig":
        if isinstance(self.model, ExistingConfig):
            if self.sparsity.kind != "dense":
                raise ValueError("sparsity: an existing model is taken as it is; allowed: sparsity=dense")
            if self.dense is not None or self.trainer.start == "dense":
                raise ValueError(f"model: kind {self.model.kind} is not trained; leave out dense and bridge")
            if self.circuits.on_the_way:
                raise ValueError(f"circuits.at: kind {self.model.kind} is not trained; allowed: [1.0]")
            return self
        vocab_size = getattr(self.tokenizer, "vocab_size", None)
        if self.sparsity.nonzeros is not None and vocab_size is not None:
            total = number_of_weights(self.model, vocab_size)
            if self.sparsity.nonzeros > total:
                raise ValueError(
                    f"sparsity.nonzeros {self.sparsity.nonzeros} is more than the model's {total} weights"
                )
        if self.dense is None and (self.bridge is not None or self.trainer.start == "dense"):
            asked = "trainer.start dense" if self.bridge is None else "bridge"
            raise ValueError(f"{asked} needs an existing dense model: dense=trained or dense=folder")
        if self.bridge is not None and self.sparsity.kind != "sparse":
            raise ValueError("bridge needs sparsity=sparse")
        if self.steering is not None and self.bridge is None:
            raise ValueError("steering needs a bridge: bridge=default")
        return self

    @property
    def kind(self) -> Kind:
        """How the model came to be: dense, sparse, sparse by way of an existing dense one, or imported."""
        if isinstance(self.model, ExistingConfig):
            return "imported"
        if self.bridge is not None:
            return "bridged"
        return "sparsified" if self.trainer.start == "dense" else self.sparsity.kind

    @property
    def name(self) -> str:
        """What tells this run from others of its sweep, for people: kind, width, depth, nonzero weights."""
        if isinstance(self.model, ExistingConfig):
            return f"{self.model.kind}-{Path(self.model.path).name}"
        size = self.sparsity.nonzeros or self.sparsity.kept_fraction
        kept = "" if size is None else f"-{size:g}" if isinstance(size, float) else f"-n{size}"
        return f"{self.kind}-d{self.model.d_model}-l{self.model.n_layer}{kept}"


def number_of_weights(config: ModelConfig, vocab_size: int) -> int:
    """How many weights sparsity applies to, without their memory; every layer has as many.

    Raises:
        ValueError: tensors cannot be that large.
    """
    import torch  # here: it takes seconds, and most wrong values are told without it

    from sparsity_lab.model.transformer import Transformer

    def total(n_layer: int) -> int:
        with torch.device("meta"):
            model = Transformer(config.model_copy(update={"n_layer": n_layer}), vocab_size)
        return sum(weight.numel() for weight, _ in model.sparse_weights().values())

    try:
        one, two = total(1), total(2)
    except (RuntimeError, TypeError, OverflowError):
        raise ValueError("model: too large for any machine") from None
    return one + (config.n_layer - 1) * (two - one)


def from_hydra(config: DictConfig) -> RunConfig:
    """Validate what Hydra composed.

    Raises:
        UserError: one line for each value that is missing, unknown, of the wrong type, or that doesn't fit
            the others.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        plain = OmegaConf.to_container(config, resolve=True)
    except InterpolationToMissingValueError as error:
        raise UserError(f"{str(error).splitlines()[0].rpartition(': ')[2]}: missing") from None
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(key + str(error).splitlines()[0]) from None
    if missing:
        raise UserError("\n".join(f"{key}: missing" for key in missing))
    return validate(RunConfig, plain)
