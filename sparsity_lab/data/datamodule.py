"""Batches for Lightning: a resumable training loader, and fixed validation windows."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from sparsity_lab.core.errors import UserError
from sparsity_lab.data.loader import StepBatches, TrainBatches, ValidationBatches
from sparsity_lab.data.packed import open_tokens, require_window
from sparsity_lab.data.validation_text import ValidationText, validation_text

log = logging.getLogger(__name__)


class TokenDataModule(LightningDataModule):
    """Batches of a folder of tokens: int64, shape (batch, n_ctx + 1), targets shifted by one.

    The batch of a step depends only on `seed` and the step. Each rank takes its share of the rows.
    `pin_memory` has an effect only with a GPU. Validation uses `validation_windows` evenly spaced windows, or
    fewer if the split is short.

    Raises:
        UserError: a size is below 1, the folder is damaged, or a split is too short for a window.
    """

    def __init__(
        self,
        folder: Path,
        n_ctx: int,
        batch_size: int,
        n_steps: int,
        seed: int,
        validation_windows: int = 256,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        if n_ctx < 1:
            raise UserError(f"model.n_ctx: {n_ctx}: must be at least 1")
        if batch_size < 1:
            raise UserError(f"trainer.batch_size: {batch_size}: must be at least 1")
        if n_steps < 1:
            raise UserError(f"trainer.tokens: {n_steps} steps: must be at least 1")
        if validation_windows < 1:
            raise UserError(f"trainer.validation_windows: {validation_windows}: must be at least 1")
        self.n_ctx, self.batch_size, self.n_steps, self.seed = n_ctx, batch_size, n_steps, seed
        self.validation_windows, self.num_workers = validation_windows, num_workers
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.folder, self.rank, self.ranks = folder, 0, 1
        self._open()
        require_window(self.train.tokens, n_ctx, "train")
        require_window(self.validation.tokens, n_ctx, "validation")
        tell_epochs(len(self.train), n_steps * batch_size * n_ctx)

    def _open(self) -> None:
        self.train = open_tokens(self.folder, "train")
        self.validation = open_tokens(self.folder, "validation")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the memory maps, which another process opens itself."""
        return {key: value for key, value in self.__dict__.items() if key not in ("train", "validation")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def train_dataloader(self) -> TrainBatches:
        """Return this rank's share of all batches of the run."""
        if self.trainer is not None:
            self.rank, self.ranks = self.trainer.global_rank, self.trainer.world_size
        batches = StepBatches(self.folder, self.n_ctx, self.batch_size, self.seed, self.rank, self.ranks)
        return TrainBatches(batches, self.n_steps, self.num_workers, self.pin_memory)

    def val_dataloader(self) -> ValidationBatches:
        """Return the fixed validation windows."""
        return ValidationBatches(self.validation_text().windows_wc, self.batch_size)

    def validation_text(self) -> ValidationText:
        """Return the windows of `val_dataloader` with their components."""
        return validation_text(self.folder, self.n_ctx, self.validation_windows)


def tell_epochs(available: int, trained: int) -> None:
    """Warn if training reads the corpus more than once, with the number of epochs."""
    if trained > available:
        log.warning(
            "trainer.tokens: training reads %s tokens, the corpus has %s: it is seen %.1f times",
            f"{trained:,}",
            f"{available:,}",
            trained / available,
        )
