"""The amortised method (`training/sparsity/amortised.py`): which weights are listed, and when."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn

from sparsity_lab.model.listing import attach
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.listed.weight import ListedWeight, largest
from sparsity_lab.training.sparsity.magnitude import project
from sparsity_lab.training.sparsity.sparsifier import PartGradient


class Settings(Protocol):
    """What the sparsifier needs of its config."""

    @property
    def at_least(self) -> int: ...

    @property
    def candidates(self) -> float: ...

    @property
    def dense_every(self) -> int: ...

    def final_fraction(self, weights: int) -> float: ...

    def weights(self, model: Transformer) -> dict[str, tuple[nn.Parameter, int | None]]: ...

    def kept_at(self, progress: float, final: float) -> float: ...

    def lists_at(self, kept: float) -> bool: ...


class Amortised(nn.Module):
    """Trains the matrices of one model by lists once few weights are kept. Its state is in checkpoints."""

    def __init__(self, config: Settings, model: Transformer, n_steps: int) -> None:
        super().__init__()
        self.config, self.n_steps, self.steps = config, n_steps, 0
        weights = config.weights(model)
        self.final_fraction = config.final_fraction(sum(weight.numel() for weight, _ in weights.values()))
        # a dict, so that the model's parameters do not become this module's too
        self.matrices = {
            name: found
            for name, found in weights.items()
            if found[0].dim() == 2 and not name.startswith("positions.")
        }
        self.lists: dict[str, ListedWeight] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        for weight, axis in weights.values():
            project(weight, self.kept_fraction(0), axis, config.at_least)
        if self._fits(0):
            for name, (weight, _) in self.matrices.items():
                self._list(name, weight.detach().view(-1).nonzero().squeeze(1))
        self._ask_for_dense()

    def kept_fraction(self, step: int) -> float:
        return self.config.kept_at(step / self.n_steps, self.final_fraction)

    def updated_names(self) -> list[str]:
        return list(self.matrices)

    def collect(self) -> list[PartGradient]:
        """Take over the listed weights' gradients and, with several ranks, average those of all matrices."""
        found = []
        for name, (weight, _) in self.matrices.items():
            if (listed := self.lists.get(name)) is None:
                if weight.grad is not None:
                    average(weight.grad)
                continue
            gradient = average(listed.collect())
            share = 1.0 if listed.dense_oi is not None else listed.spread
            found.append(PartGradient(gradient, share, weight.numel()))
        return found

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the listed weights with the settings of the optimizer's first group."""
        self._optimizer = optimizer
        self.steps += 1
        for listed in self.lists.values():
            listed.update(optimizer.param_groups[0], self.steps, self.kept_fraction(self.steps))

    def after_step(self, model: Transformer, step: int) -> None:
        kept = self.kept_fraction(step)
        for name, (weight, axis) in self.config.weights(model).items():
            if name in self.lists:
                self.lists[name].project(kept)
            else:
                project(weight, kept, axis, self.config.at_least)
        if self._optimizer is not None and not self.lists and self._fits(step):
            self._start_lists(self._optimizer, kept)
        self._ask_for_dense()

    def _fits(self, step: int) -> bool:
        return self.config.lists_at(self.kept_fraction(step))

    def _list(self, name: str, index_n: Tensor) -> ListedWeight:
        weight, axis = self.matrices[name]
        listed = ListedWeight(weight, axis, self.config.at_least, self.config.candidates, index_n)
        self.lists[name] = listed
        return listed

    def _start_lists(self, optimizer: torch.optim.Optimizer, kept: float) -> None:
        """List the nonzeros and the zeros whose moments ask for the largest steps; drop the dense moments."""
        eps = optimizer.param_groups[0]["eps"]
        for name, (weight, _) in self.matrices.items():
            state = optimizer.state.pop(weight, {})
            m, v = (state.get(key, torch.zeros_like(weight)) for key in ("exp_avg", "exp_avg_sq"))
            score = (m.abs() / (v.sqrt() + eps)).masked_fill_(weight.detach() != 0, 1e30)
            listed = self._list(name, torch.zeros(0, dtype=torch.int64, device=weight.device))
            index_n = largest(score, listed.length(kept))
            listed.listing.relist(weight, index_n)
            listed.m_n, listed.v_n = m.view(-1)[index_n], v.view(-1)[index_n]
            listed.note_squares(v)

    def _ask_for_dense(self) -> None:
        """Choose the matrices whose gradient is computed whole in the next step."""
        every = self.config.dense_every
        for number, listed in enumerate(self.lists.values()):
            turn = number * every // len(self.lists)
            listed.listing.wants_dense = (self.steps + 1 + turn) % every == 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "lists": {name: listed.state() for name, listed in self.lists.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the lists. The model's own weights must have been restored before."""
        for weight, _ in self.matrices.values():
            attach(weight, None)
        self.steps, self.lists = state["steps"], {}
        for name, saved in state["lists"].items():
            self._list(name, saved["index_n"].to(self.matrices[name][0].device)).load(saved)
        self._ask_for_dense()


def average(gradient: Tensor) -> Tensor:
    """Average a gradient over all ranks, in place."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(gradient)
        gradient /= distributed.get_world_size()
    return gradient
