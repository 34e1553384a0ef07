"""Models on the way: the weights at fractions of a training, each as that step's projection left them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.training.module import LanguageModule

SNAPSHOTS = "snapshots"


def snapshot_folder(folder: Path, at: float) -> Path:
    """Where the snapshot at fraction `at` of a training in `folder` is kept."""
    return folder / SNAPSHOTS / str(at)


def step_at(at: float, n_steps: int) -> int:
    """The optimizer step, from 1, that ends fraction `at` of a training."""
    return max(1, round(at * n_steps))


class Snapshots(lightning.Callback):
    """Keeps the model at each fraction in `at`, below `folder`.

    Lightning calls it before the checkpoints: what a training goes on from is never ahead of its snapshots.
    """

    def __init__(self, folder: Path, at: Sequence[float]) -> None:
        self.folder, self.at = folder, at

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *args: Any
    ) -> None:
        assert isinstance(module, LanguageModule)
        if not trainer.is_global_zero:
            return
        for at in self.at:
            if step_at(at, module.n_steps) == trainer.global_step:
                save_model(module.model, snapshot_folder(self.folder, at))
