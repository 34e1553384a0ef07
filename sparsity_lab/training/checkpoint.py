"""Checkpoints of a training in progress: whole under their names, two of them, checked before their use."""

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

log = logging.getLogger(__name__)

LAST, BEFORE = "last.ckpt", "before.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes atomically; Lightning's own way is a copy from the temporary folder, and may leave half a file.

    The checkpoint before is kept until the new one is on disk, and until the next comes.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer, path = io.BytesIO(), Path(path)
        torch.save(checkpoint, buffer)
        if path.exists():
            path.replace(path.with_name(BEFORE))
        write_bytes(path, buffer.getbuffer())


class Checkpoints(Checkpoint):
    """Saves every `every` steps, and when the process is asked to end, which then ends the training.

    Where a validation is due after the step, the checkpoint waits for it: resumption does not repeat it.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path, self.every = folder / LAST, every
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *args: Any) -> None:
        """Take SIGTERM back from Lightning, which would end without a checkpoint, or wait for the ranks."""
        if self._on_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.val_check_batch:  # type: ignore[operator]
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if trainer.state.fn == "fit":
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: lightning.Trainer) -> None:
        interrupted = _asked_to_end(trainer)
        if interrupted or trainer.global_step % self.every == 0:
            for logger in trainer.loggers:
                logger.save()  # the rows up to here, which resumption counts on
            trainer.save_checkpoint(self.path, weights_only=False)
        if interrupted:
            log.info("saved at step %d; the same command goes on from there", trainer.global_step)
            raise interrupted


def _asked_to_end(trainer: lightning.Trainer) -> Interrupted | None:
    """What ends this process, or another rank's: all of them save together, or none."""
    interrupted = received()
    if trainer.world_size == 1:
        return interrupted
    mine = float(interrupted.number) if interrupted else 0.0
    asked = torch.tensor(mine, device=trainer.strategy.root_device)
    number = int(trainer.strategy.reduce(asked, reduce_op="max"))
    return Interrupted(number) if number else None


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, if any; tells of damaged ones, which are passed over."""
    for path in (folder / LAST, folder / BEFORE):
        if not path.exists():
            continue
        if damage := damage_of(path):
            log.warning("%s: damaged (%s); going on from what there is before it", path, damage)
        else:
            return path
    return None


def damage_of(path: Path) -> str:
    """What is wrong with a checkpoint, empty if nothing: checksums of all its parts, then its structure.

    Only tensors and plain containers are read; what a file would have executed is not.
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
