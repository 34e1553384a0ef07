"""Run a training in a folder: checkpoints, resuming, snapshots, progress, precision and final metrics."""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.signals import deferred
from sparsity_lab.core.waiting import told
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.kernels.compiled import compiled_before
from sparsity_lab.kernels.machine import number_format
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.training.checkpoint import Checkpoints, WholeFiles, newest
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.ranks import cluster, other_ranks
from sparsity_lab.training.snapshots import Snapshots

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # by torch; Lightning still calls it
    r"The '.*_dataloader' does not have many workers",  # the tokens are memory-mapped, so loading is fast
    r"The `srun` command is available",  # if Slurm is installed; a single process is intended
    r"`broadcast_buffers` is deprecated",  # by torch 2.13; torch 2.6 has no other name for it
)


def precision(wanted: str) -> str:
    """Return Lightning's name for a `trainer.precision`."""
    return {"bfloat16": "bf16-mixed", "float32": "32-true"}[number_format(wanted)]


def device_type(accelerator: str) -> str:
    """Return torch's name for the kind of device that `trainer.accelerator` trains on."""
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's hardware messages and warnings that no user can act on."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message)
        yield


def fit(
    module: LanguageModule,
    data: TokenDataModule,
    folder: Path,
    loggers: list[Logger],
    name: str,
    fractions: Sequence[float] = (),
) -> dict[str, float]:
    """Train to the end, resuming from the newest checkpoint in `folder`; returns validation metrics.

    They are measured on the windows of the validations during training.

    A snapshot of the model is saved at each of `fractions` of training (`snapshots.snapshot_folder`). The
    other ranks on this machine, if any, are started and stopped here.

    Raises:
        Interrupted: the process was asked to stop; the current step was completed and saved.
        UserError: the loss or gradient is not finite, or the machine lacks hardware that the config asks for.
        RuntimeError: another rank failed.
    """
    with other_ranks(module.config, partial(train, module, data, folder, [], name, ())):
        return train(module, data, folder, loggers, name, fractions)


@quiet()
def train(
    module: LanguageModule,
    data: TokenDataModule,
    folder: Path,
    loggers: list[Logger],
    name: str,
    fractions: Sequence[float],
) -> dict[str, float]:
    """Run the training of `fit` in one rank."""
    config = module.config
    checkpoints = folder / CHECKPOINTS
    validate_every = max(1, module.n_steps // config.validations)
    trainer = _trainer(
        config,
        max_steps=module.n_steps,
        precision=precision(config.precision),
        logger=loggers,
        callbacks=[
            Progress(name),
            Snapshots(folder, fractions),
            Checkpoints(checkpoints, config.checkpoint_every),
        ],
        log_every_n_steps=1,
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,  # enables the hook `configure_gradient_clipping`, which scales the gradients
        default_root_dir=folder,
    )
    with deferred():
        trainer.fit(module, data, ckpt_path=newest(checkpoints), weights_only=True)
    if module.n_steps % validate_every == 0:
        trainer.loggers = []  # the training has already logged a validation of this step
    (final,) = trainer.validate(module, data, verbose=False)
    return {metric.name: final[metric.name] for metric in metrics.VALIDATION if metric.name in final}


def _trainer(config: TrainerConfig, **more: Any) -> lightning.Trainer:
    several = config.ranks > 1 or config.strategy == "ddp"
    try:
        return lightning.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",  # the bigram table is fixed
            plugins=[cluster(config), WholeFiles()],
            use_distributed_sampler=False,
            **more,
        )
    except MisconfigurationException as error:
        raise UserError(f"trainer.accelerator, trainer.devices: {error}") from None


class Progress(lightning.Callback):
    """Logs a row of metrics for each measured step, and prints progress every few seconds.

    Speed and time left exclude the first step, which also compiles kernels and fills caches.
    """

    LEAST = 5, 2.0  # steps and seconds after the first step before a time left is shown

    def __init__(self, name: str, seconds: float = 10.0) -> None:
        self.name, self.seconds = name, seconds
        self.first = ExitStack()  # empty until the training starts, which an earlier failure prevents

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.started = self.spoken = time.monotonic()
        self.first_step = trainer.global_step
        self.warm = self.started, self.first_step  # time and step from which speed is measured
        if module.device.type == "cpu" and kernels_are_on() and not compiled_before():
            log.info("%s: compiling kernels, once: the first step takes about a minute", self.name)
        self.first.enter_context(told(f"{self.name}: first step, for which kernels may have to be compiled"))
        self.loss = float("nan")

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self.first.close()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
    ) -> None:
        assert isinstance(module, LanguageModule)
        now, step = time.monotonic(), trainer.global_step
        per_step = trainer.world_size * batch.shape[0] * (batch.shape[1] - 1)
        since, first = self.warm
        steps, seconds = step - first, max(now - since, 1e-9)
        speed = steps * per_step / seconds
        if step == self.first_step + 1:
            self.warm = now, step
            self.first.close()
        if module.is_measured(step):
            row = {metrics.TOKENS.name: step * per_step, metrics.THROUGHPUT.name: speed} | module.measured()
            self.loss = row[metrics.TRAIN_LOSS.name]
            for logger in trainer.loggers:
                logger.log_metrics(row, step)
        if now - self.spoken >= self.seconds or step == module.n_steps:
            self.spoken = now
            tells = first > self.first_step and steps >= self.LEAST[0] and seconds >= self.LEAST[1]
            left = f", {(module.n_steps - step) * seconds / steps:.0f} s left" if tells else ""
            log.info(
                "%s: step %d of %d, loss %.3f, %.0f tokens/s%s",
                self.name, step, module.n_steps, self.loss, speed, left,
            )  # fmt: skip
