"""Checkpoints of a training in progress.

Each checkpoint is written atomically and checked before use. The one before it is kept as a fallback.
"""

import io
import logging
import pickle
import signal
import threading
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from sparsity_lab.core.files import write_bytes
from sparsity_lab.core.signals import Interrupted, received
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.copies import require_same_weights

log = logging.getLogger(__name__)

LAST, BEFORE = "last.ckpt", "before.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints atomically and keeps the previous one.

    Lightning copies from its temporary folder instead, which can leave a partial file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer, path = io.BytesIO(), Path(path)
        torch.save(checkpoint, buffer)
        if path.exists():
            path.replace(path.with_name(BEFORE))
        write_bytes(path, buffer.getbuffer())


class Checkpoints(Checkpoint):
    """Saves every `every` steps, and when the process is asked to stop; the training then ends.

    If a validation is due after the same step, the checkpoint is saved after it, so a resumed training does
    not repeat the validation. Before each checkpoint and at the end, all ranks must hold the same weights.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path, self.every = folder / LAST, every
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *args: Any) -> None:
        """Restore our SIGTERM handler: Lightning's exits without a checkpoint, or waits for the ranks."""
        if self._on_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.val_check_batch:  # type: ignore[operator]
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if trainer.state.fn == "fit":
            self._save_if_due(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        self._check_copies(trainer)

    def _check_copies(self, trainer: lightning.Trainer) -> None:
        if trainer.world_size > 1:
            model = trainer.lightning_module.model
            assert isinstance(model, Transformer)
            require_same_weights(model, trainer.strategy.root_device, trainer.global_step)

    def _save_if_due(self, trainer: lightning.Trainer) -> None:
        interrupted = _asked_to_end(trainer)
        if interrupted or trainer.global_step % self.every == 0:
            self._check_copies(trainer)
            for logger in trainer.loggers:
                logger.save()  # a resumed training relies on the rows up to here
            trainer.save_checkpoint(self.path, weights_only=False)
        if interrupted:
            log.info("saved at step %d; to resume, repeat the command", trainer.global_step)
            raise interrupted


def _asked_to_end(trainer: lightning.Trainer) -> Interrupted | None:
    """Return the signal that this process or another rank received, so that all ranks save together."""
    interrupted = received()
    if trainer.world_size == 1:
        return interrupted
    mine = float(interrupted.number) if interrupted else 0.0
    asked = torch.tensor(mine, device=trainer.strategy.root_device)
    number = int(trainer.strategy.reduce(asked, reduce_op="max"))
    return Interrupted(number) if number else None


def newest(folder: Path) -> Path | None:
    """Return the newest intact checkpoint in `folder`, if any. Damaged ones are skipped with a warning."""
    for path in (folder / LAST, folder / BEFORE):
        if not path.exists():
            continue
        if damage := damage_of(path):
            log.warning("%s: damaged (%s); resuming from an earlier state", path, damage)
        else:
            return path
    return None


def damage_of(path: Path) -> str:
    """Describe the damage of a checkpoint; the empty string if it is intact.

    The check covers the checksums of all parts, then the structure. It loads only tensors and plain
    containers and executes no code from the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                return f"checksum of {broken}"
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError),
        *(NotImplementedError, pickle.UnpicklingError, zipfile.BadZipFile, MemoryError, OverflowError),
    ) as error:
        return (str(error) or type(error).__name__).splitlines()[0][:200]
    parts = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"}
    return "" if isinstance(saved, dict) and parts <= saved.keys() else "not a training's checkpoint"
