"""Train a module on a data module, in a folder: checkpoints, resuming, progress, precision, final metrics."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from sparsity_lab import metrics
from sparsity_lab.model.machine import native_bf16
from sparsity_lab.training.modules import DenseModule

log = logging.getLogger(__name__)

_NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # by torch; Lightning still calls it
    r"The '.*_dataloader' does not have many workers",  # the tokens are a memory map: nothing to wait for
)


def precision(wanted: str) -> str:
    """Lightning's name for the precision; "auto" is bfloat16 autocast only where the processor has it."""
    if wanted == "auto":
        wanted = "bfloat16" if native_bf16() else "float32"
    return {"bfloat16": "bf16-mixed", "float32": "32-true"}[wanted]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's remarks on the hardware, and warnings that no user can act on, out of the log."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message)
        yield


@quiet()
def fit(
    module: DenseModule, data: lightning.LightningDataModule, folder: Path, loggers: list[Logger], name: str
) -> dict[str, float]:
    """Train to the end, from the last checkpoint in `folder` if there is one; returns validation metrics."""
    config = module.config
    checkpoints = ModelCheckpoint(
        dirpath=folder / "checkpoints",
        every_n_train_steps=config.checkpoint_every,
        save_last=True,
        save_top_k=0,
        enable_version_counter=False,
    )
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=module.n_steps,
        precision=precision(config.precision),  # type: ignore[arg-type]
        logger=loggers,
        callbacks=[checkpoints, Progress(name)],
        log_every_n_steps=1,
        val_check_interval=max(1, module.n_steps // config.validations),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,  # asks for the hook; `configure_gradient_clipping` says what it does
        default_root_dir=folder,
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    (final,) = trainer.validate(module, data, verbose=False)
    return {metric.name: final[metric.name] for metric in metrics.VALIDATION}


class Progress(lightning.Callback):
    """Throughput for the log, and a line of progress every few seconds."""

    def __init__(self, name: str, seconds: float = 10.0) -> None:
        self.name, self.seconds = name, seconds

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.started = self.spoken = time.monotonic()
        self.first_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
    ) -> None:
        assert isinstance(module, DenseModule)
        now, step = time.monotonic(), trainer.global_step
        per_step = batch.shape[0] * (batch.shape[1] - 1)
        speed = (step - self.first_step) * per_step / (now - self.started)
        if (step - 1) % module.config.log_every == 0:
            module.log(metrics.THROUGHPUT.name, speed)
            module.log(metrics.TOKENS.name, float(step * per_step))
        if now - self.spoken >= self.seconds or step == module.n_steps:
            self.spoken = now
            left = (module.n_steps - step) * per_step / speed
            loss = trainer.callback_metrics.get(metrics.TRAIN_LOSS.name, float("nan"))
            log.info(
                "%s: step %d of %d, loss %.3f, %.0f tokens/s, %.0f s left",
                self.name, step, module.n_steps, float(loss), speed, left,
            )  # fmt: skip
