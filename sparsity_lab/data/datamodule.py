"""Batches for Lightning: a train loader that resumes where it stopped, and fixed validation windows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from sparsity_lab.base import UserError
from sparsity_lab.data.packed import fixed_windows, open_tokens, random_batch


class _Steps(Dataset[torch.Tensor]):
    """Item `step` is that step's whole batch."""

    def __init__(self, batch: Callable[[int], torch.Tensor]) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> torch.Tensor:
        return self.batch(step)


class TrainBatches:
    """The batches of steps 0 to n_steps - 1, or from the step that `load_state_dict` was told.

    Lightning saves the state with its checkpoint, and counts on `__len__` being the whole run's.
    """

    def __init__(self, batch: Callable[[int], torch.Tensor], n_steps: int, num_workers: int = 0) -> None:
        self.batch, self.n_steps, self.num_workers, self.step = batch, n_steps, num_workers, 0

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        steps = range(self.step, self.n_steps)
        loader = DataLoader(_Steps(self.batch), batch_size=None, sampler=steps, num_workers=self.num_workers)
        for batch_bc in loader:
            self.step += 1  # before the yield: the state is saved while the batch is in use
            yield batch_bc
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """The next step; one that is done starts again at 0."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved state."""
        self.step = state["step"]


class ValidationBatches:
    """Fixed windows (w, n_ctx + 1), in batches of at most `batch_size`."""

    def __init__(self, windows_wc: torch.Tensor, batch_size: int) -> None:
        self.windows_wc, self.batch_size = windows_wc, batch_size

    def __len__(self) -> int:
        return -(-len(self.windows_wc) // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.windows_wc.split(self.batch_size))


class TokenDataModule(LightningDataModule):
    """Batches of a folder of tokens: int64, shape (batch, n_ctx + 1), the targets being the inputs one later.

    The batch of a step depends on `seed` and the step alone. Validation is on `validation_windows` evenly
    spaced windows, fewer if the split is short.
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
    ) -> None:
        super().__init__()
        sizes = {"n_ctx": n_ctx, "batch_size": batch_size, "n_steps": n_steps}
        for name, value in (sizes | {"validation_windows": validation_windows}).items():
            if value < 1:
                raise UserError(f"{name}: {value}: must be at least 1")
        self.n_ctx, self.batch_size, self.n_steps, self.seed = n_ctx, batch_size, n_steps, seed
        self.validation_windows, self.num_workers = validation_windows, num_workers
        self.train = open_tokens(folder, "train")
        self.validation = open_tokens(folder, "validation")

    def train_batch(self, step: int) -> torch.Tensor:
        """The batch of one step."""
        return random_batch(self.train.tokens, self.n_ctx, self.batch_size, self.seed, step)

    def train_dataloader(self) -> TrainBatches:
        """All batches of the run."""
        return TrainBatches(self.train_batch, self.n_steps, self.num_workers)

    def val_dataloader(self) -> ValidationBatches:
        """The fixed validation windows."""
        windows_wc = fixed_windows(self.validation.tokens, self.n_ctx, self.validation_windows)
        return ValidationBatches(windows_wc, self.batch_size)
