"""What training and validation iterate over: each item is a whole batch, int64, shape (b, n_ctx + 1)."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from sparsity_lab.data.packed import Tokens, map_tokens, random_batch


@dataclass(frozen=True)
class StepBatches(Dataset[torch.Tensor]):
    """Item `step` is one rank's share of that step's batch.

    Plain values alone are pickled: a worker, forked or spawned, maps the file for itself.
    """

    folder: Path
    n_ctx: int
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def __getitem__(self, step: int) -> torch.Tensor:
        batch_bc = random_batch(self._tokens, self.n_ctx, self.batch_size, self.seed, step)
        return batch_bc.tensor_split(self.ranks)[self.rank]

    def __getstate__(self) -> dict[str, Any]:
        """The fields; a pickled map would hold all tokens."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _tokens(self) -> Tokens:
        return map_tokens(self.folder, "train").tokens


class TrainBatches:
    """The batches of steps 0 to n_steps - 1, or from the step that `load_state_dict` was told.

    Lightning saves the state with its checkpoint, and counts on `__len__` being the whole run's.
    """

    def __init__(
        self, batches: StepBatches, n_steps: int, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.batches, self.n_steps, self.step = batches, n_steps, 0
        self.num_workers, self.pin_memory = num_workers, pin_memory

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        steps = range(self.step, self.n_steps)
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=steps,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            multiprocessing_context=_start_method() if self.num_workers else None,
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


def _start_method() -> str | None:
    """How workers start: as Python would, but by fork in joblib's processes.

    joblib makes its own start method, "loky", the default there; torch's loader can't start with it, and
    spawned processes don't find it.
    """
    return "fork" if multiprocessing.get_start_method() == "loky" else None


class ValidationBatches:
    """Fixed windows (w, n_ctx + 1), in batches of at most `batch_size`."""

    def __init__(self, windows_wc: torch.Tensor, batch_size: int) -> None:
        self.windows_wc, self.batch_size = windows_wc, batch_size

    def __len__(self) -> int:
        return -(-len(self.windows_wc) // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.windows_wc.split(self.batch_size))
