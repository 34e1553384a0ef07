"""A run's whole config: each room's own part, composed by Hydra and validated once, at the door."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from sparsity_lab.bridges.config import BridgeConfig, SteeringConfig
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.finders import FinderConfig
from sparsity_lab.circuits.snapshots import SnapshotsConfig
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.names import SweepName
from sparsity_lab.core.paths import AS_READ, UserPath
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.data.corpora import CorpusConfig
from sparsity_lab.data.tokenizers import TokenizerConfig
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.importers.imported import ImportedConfig
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.record import Kind
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.sparsity import METHODS, SparsityConfig
from sparsity_lab.training.sparsity.sparsifier import PARTS


class ReferenceConfig(Config):
    """The reference model: a run's model `folder`, a model from elsewhere, or one to train here first."""

    folder: UserPath | None = None
    model: Annotated[ModelConfig | ImportedConfig | None, Field(discriminator="kind")] = None
    trainer: TrainerConfig | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "ReferenceConfig":
        if (self.folder is None) == (self.model is None):
            raise ValueError("give either folder or model")
        if isinstance(self.model, ModelConfig) != (self.trainer is not None):
            raise ValueError("give trainer with a model that is to be trained, and with no other")
        return self


def _on_or_off(value: Any) -> Any:
    """The word that was written: YAML reads a bare on or off as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class RunConfig(Config):
    """One job of a sweep, or a run by itself.

    `root` is the folder that everything is written below, `sweep_name` the sweep's, if any, `threads` how
    many cores the run may use (null: all), `seed` what every random choice is derived from. `kernels` off
    computes with plain PyTorch alone: the same within floating-point error, and slower. `records` is a folder
    that gets a copy of the run's record; a sweep counts its jobs as done whose record lies there.
    """

    seed: Annotated[int, Field(ge=0)]
    root: UserPath
    records: UserPath | None = None
    sweep_name: SweepName | None
    threads: PositiveInt | None
    kernels: Annotated[Literal["on", "off"], BeforeValidator(_on_or_off)] = "on"
    corpus: Annotated[CorpusConfig, Field(discriminator="kind")]
    tokenizer: Annotated[TokenizerConfig, Field(discriminator="kind")]
    model: Annotated[ModelConfig | ImportedConfig, Field(discriminator="kind")]
    sparsity: SparsityConfig
    trainer: TrainerConfig
    reference: ReferenceConfig | None = None
    bridge: BridgeConfig | None = None
    tasks: TasksConfig
    finder: Annotated[FinderConfig, Field(discriminator="kind")]
    pruning: PruningConfig
    snapshots: SnapshotsConfig
    steering: SteeringConfig | None = None
    evidence: EvidenceConfig
    logger: LoggerConfig

    @model_validator(mode="after")
    def _fits(self) -> "RunConfig":
        if self.steering is not None and self.bridge is None:
            raise ValueError("steering needs a bridge: bridge=default")
        own_model = not isinstance(self.model, ImportedConfig) and self.reference is None
        if self.records is not None and not own_model:
            raise ValueError(
                f"records: {str(self.records)!r}: a config does not say all that the result of an imported "
                "or a reference model depends on; allowed: null"
            )
        if self.pruning.needs_whole_run and (self.evidence.enabled or self.steering is not None):
            asked = "evidence" if self.evidence.enabled else "steering"
            raise ValueError(
                f"pruning: ablation other_prompt and freeze_norm: {asked} cannot run the whole model beside "
                "the circuit; allowed: evidence=none, without steering"
            )
        available = self.tasks.available()
        named = {"evidence": self.evidence.tasks, "steering": self.steering and self.steering.tasks}
        for key, names in named.items():
            if unknown := [name for name in names or () if name not in available]:
                raise ValueError(f"{key}.tasks: unknown task {unknown}; allowed: {', '.join(available)}")
        if isinstance(self.model, ImportedConfig):
            if self.sparsity.is_sparse:
                raise ValueError("sparsity: an imported model is taken as it is; allowed: sparsity=none")
            untrained = f"kind {self.model.kind} is not trained"
            if self.reference is not None or self.bridge is not None or self.trainer.start == "reference":
                raise ValueError(f"model: {untrained}; leave out reference, bridge and steering")
            if self.snapshots.before_the_end:
                raise ValueError(f"snapshots.fractions: {untrained}; allowed: [1.0]")
            return self
        if self.trainer.tokens < (step := self.trainer.batch_size * self.model.n_ctx):
            raise ValueError(
                f"trainer.tokens: {self.trainer.tokens}: fewer than one step; allowed: at least "
                f"trainer.batch_size · model.n_ctx = {step}"
            )
        vocab_size = getattr(self.tokenizer, "vocab_size", None)
        if vocab_size is not None:
            self.sparsity.check_size(number_of_weights(self.model, vocab_size, self.sparsity.parts))
        if self.reference is None and (self.bridge is not None or self.trainer.start == "reference"):
            asked = "trainer.start reference" if self.bridge is None else "bridge"
            raise ValueError(f"{asked} needs a reference model: reference=trained or reference=folder")
        if self.bridge is not None and not self.sparsity.is_sparse:
            allowed = ", ".join(f"sparsity={kind}" for kind in METHODS if kind != self.sparsity.kind)
            raise ValueError(f"bridge needs a sparse model; allowed: {allowed}")
        return self

    @property
    def kind(self) -> Kind:
        """How the model came to be: dense, sparse, sparse by way of a reference model, or imported."""
        if isinstance(self.model, ImportedConfig):
            return "imported"
        if self.bridge is not None:
            return "bridged"
        if not self.sparsity.is_sparse:
            return "dense"
        return "sparsified" if self.trainer.start == "reference" else "sparse"

    @property
    def plain(self) -> dict[str, Any]:
        """The config as plain containers.

        Paths that are read are absolute, so that they hold in any folder; `root` and `records` are as given.
        """
        written = {"root": str(self.root), "records": self.records and str(self.records)}
        return self.model_dump(mode="json", context=AS_READ) | written

    @property
    def digest(self) -> str:
        """Hash of every value but the places that are written to. A path counts as the place it names."""
        read = {key: value for key, value in self.plain.items() if key not in ("root", "records")}
        return content_hash(read)

    @property
    def name(self) -> str:
        """What tells this run from others of its sweep, for people: kind, width, depth, nonzero weights."""
        if isinstance(self.model, ImportedConfig):
            folder = Path(os.path.normpath(self.model.path)).name
            return f"{self.model.kind}-{re.sub(r'[^A-Za-z0-9_.+-]', '_', folder)}"  # a folder's name, too
        shape = f"{self.kind}-d{self.model.d_model}-l{self.model.n_layer}"
        return f"{shape}-{self.sparsity.label}" if self.sparsity.label else shape


def number_of_weights(config: ModelConfig, vocab_size: int, parts: Sequence[str] = PARTS) -> int:
    """How many weights sparsity can apply to in some parts of the model, or in all.

    Raises:
        ValueError: tensors cannot be that large.
    """
    counts = config.weight_counts(vocab_size)
    count = sum(counts[part] for part in parts)
    if count > sys.maxsize:
        raise ValueError("model: too large for any machine")
    return count


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
    assert isinstance(plain, dict)
    plain.pop("of", None)  # whose model the run takes is no value of it (`sweep/finished_run.py`)
    if renamed := renamed_in_config({str(key): value for key, value in plain.items()}):
        raise UserError("\n".join(renamed))
    if missing:
        raise UserError("\n".join(f"{key}: missing" for key in missing))
    return validate(RunConfig, plain)


def _user_path(written: Any) -> str:
    """The absolute path of a path in the config's own interpolations, as Hydra's folders of logs.

    Raises:
        UserError: it is not a path.
    """
    try:
        return os.fspath(UserPath("null" if written is None else str(written)))
    except ValueError as error:
        raise UserError(f"root: {written!r}: {error}") from None


OmegaConf.register_new_resolver("user_path", _user_path, replace=True)
