"""Iterables for training and validation. Each item is a batch, int64, shape (b, n_ctx + 1)."""

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

    Only plain values are pickled. Every worker, forked or spawned, maps the file itself.
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
        """Return only the fields; a pickled memory map would hold all tokens."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _tokens(self) -> Tokens:
        return map_tokens(self.folder, "train").tokens


class TrainBatches:
    """The batches of steps 0 to n_steps - 1, starting at a loaded step when resumed.

    Lightning saves the state in its checkpoint. It expects `__len__` to cover the whole run.
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
            self.step += 1  # before the yield, because the state is saved while the batch is in use
            yield batch_bc
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Return the next step, which is 0 after a full pass."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from a saved state."""
        self.step = state["step"]


def _start_method() -> str | None:
    """Return the start method of workers: Python's default, but fork inside joblib's processes.

    There joblib sets its own default, "loky". Torch's loader cannot use it, and spawned processes do not know
    it.
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
