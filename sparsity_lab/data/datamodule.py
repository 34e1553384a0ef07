"""Batches for Lightning: a train loader that resumes where it stopped, and fixed validation windows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from sparsity_lab.core.errors import UserError
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

    def __init__(
        self,
        batch: Callable[[int], torch.Tensor],
        n_steps: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batch, self.n_steps, self.step = batch, n_steps, 0
        self.num_workers, self.pin_memory = num_workers, pin_memory

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        steps = range(self.step, self.n_steps)
        loader = DataLoader(
            _Steps(self.batch),
            batch_size=None,
            sampler=steps,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
        )
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

    The batch of a step depends on `seed` and the step alone; of several ranks each takes its share of the
    rows. `pin_memory` has an effect where there is a GPU. Validation is on `validation_windows` evenly
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
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"n_ctx": n_ctx, "batch_size": batch_size, "n_steps": n_steps}
        for name, value in (sizes | {"validation_windows": validation_windows}).items():
            if value < 1:
                raise UserError(f"{name}: {value}: must be at least 1")
        self.n_ctx, self.batch_size, self.n_steps, self.seed = n_ctx, batch_size, n_steps, seed
        self.validation_windows, self.num_workers = validation_windows, num_workers
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.folder, self.rank, self.ranks = folder, 0, 1
        self._open()

    def _open(self) -> None:
        self.train = open_tokens(self.folder, "train")
        self.validation = open_tokens(self.folder, "validation")

    def __getstate__(self) -> dict[str, Any]:
        """All but the maps of the files, which another process opens for itself."""
        return {key: value for key, value in self.__dict__.items() if key not in ("train", "validation")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def train_batch(self, step: int) -> torch.Tensor:
        """This rank's share of the batch of one step."""
        batch_bc = random_batch(self.train.tokens, self.n_ctx, self.batch_size, self.seed, step)
        return batch_bc.tensor_split(self.ranks)[self.rank]

    def train_dataloader(self) -> TrainBatches:
        """All batches of the run; of several ranks, this one's share of each."""
        if self.trainer is not None:
            self.rank, self.ranks = self.trainer.global_rank, self.trainer.world_size
        return TrainBatches(self.train_batch, self.n_steps, self.num_workers, self.pin_memory)

    def val_dataloader(self) -> ValidationBatches:
        """The fixed validation windows."""
        windows_wc = fixed_windows(self.validation.tokens, self.n_ctx, self.validation_windows)
        return ValidationBatches(windows_wc, self.batch_size)
