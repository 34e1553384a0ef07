"""Snapshots: the weights at given fractions of a training, saved after that step's projection."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.training.module import LanguageModule

SNAPSHOTS = "snapshots"


def snapshot_folder(folder: Path, fraction: float) -> Path:
    """Return the folder of the snapshot at `fraction` of the training in `folder`."""
    return folder / SNAPSHOTS / str(fraction)


def step_at(fraction: float, n_steps: int) -> int:
    """Return the optimizer step (from 1) that completes `fraction` of a training."""
    return max(1, round(fraction * n_steps))


class Snapshots(lightning.Callback):
    """Saves the model below `folder` at each of `fractions` of the training.

    Lightning calls it before `Checkpoints`, so a training never resumes from a step past a missing snapshot.
    """

    def __init__(self, folder: Path, fractions: Sequence[float]) -> None:
        self.folder, self.fractions = folder, fractions

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *args: Any
    ) -> None:
        assert isinstance(module, LanguageModule)
        if not trainer.is_global_zero:
            return
        for fraction in self.fractions:
            if step_at(fraction, module.n_steps) == trainer.global_step:
                save_model(module.model, snapshot_folder(self.folder, fraction))
