"""One listed weight of the amortised method: its list, AdamW's moments at the list, update and growth.

Shape suffixes: o outputs, i inputs, n listed entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.listing import Listing, attach
from sparsity_lab.training.sparsity.magnitude import kept_count, project

NEW = 0.25  # share of the newest dense gradient in moving averages


class ListedWeight:
    """A weight trained by the entries in its list: the nonzeros and, for each, `candidates` zeros.

    `axis` and `at_least`: as for `magnitude.project`. Moving averages over dense gradients: in `norms`, the
    squared norm of the whole gradient and of its listed part; in `row_o` and `column_i`, the mean square of
    each row and column.
    """

    def __init__(
        self, weight: nn.Parameter, axis: int | None, at_least: int, candidates: float, index_n: Tensor
    ) -> None:
        self.weight, self.axis, self.candidates = weight, axis, candidates
        self.channels = 1 if axis is None else weight.shape[axis]
        self.at_least = 0 if axis is None else min(at_least, weight.numel() // self.channels)
        self.listing = Listing(weight, index_n)
        self.m_n, self.v_n = (torch.zeros_like(self.listing.values_n.detach()) for _ in range(2))
        self.norms: tuple[float, float] | None = None
        self.row_o, self.column_i = weight.new_zeros(len(weight)), weight.new_zeros(weight.shape[1])
        self.dense_oi: Tensor | None = None
        attach(weight, self.listing)

    @property
    def spread(self) -> float:
        """Estimate the squared norm of the whole gradient over that of its listed part."""
        if self.norms is None or self.norms[1] == 0:
            return self.weight.numel() / max(1, len(self.listing.index_n))
        return self.norms[0] / self.norms[1]

    def keep(self, kept: float) -> int:
        """Return how many weights are nonzero at kept fraction `kept`."""
        return kept_count(self.weight.numel(), kept, self.channels, self.at_least)

    def length(self, kept: float) -> int:
        """Return how many entries are listed at kept fraction `kept`."""
        return min(self.weight.numel(), round(self.keep(kept) * (1 + self.candidates)))

    def collect(self) -> Tensor:
        """Take over the gradient that the backward pass left: the listed part, or the whole if it was due."""
        listing, whole_oi, self.weight.grad = self.listing, self.weight.grad, None
        if listing.index_n.device != self.weight.device:
            self._to(self.weight.device)
        if listing.wants_dense:
            self.dense_oi = torch.zeros_like(self.weight) if whole_oi is None else whole_oi
            return self.dense_oi
        if listing.values_n.grad is None:
            listing.values_n.grad = torch.zeros_like(listing.values_n)
        if whole_oi is not None:  # where no kernel has served
            listing.values_n.grad += whole_oi.view(-1)[listing.index_n]
        return listing.values_n.grad

    def update(self, group: dict[str, Any], step: int, kept: float) -> None:
        """Update the values by AdamW with the settings of an optimizer's parameter `group`.

        `step` counts optimizer steps from 1. After a dense gradient the list is renewed first.
        """
        if self.dense_oi is not None:
            self._grow(self.dense_oi, kept, group["betas"][0], group["eps"])
            self.dense_oi = None
        listing, lr = self.listing, group["lr"]
        values_n, gradient_n = listing.values_n.detach(), listing.values_n.grad
        assert gradient_n is not None
        adamw(
            [values_n],
            [gradient_n],
            [self.m_n],
            [self.v_n],
            [],
            [torch.tensor(float(step - 1), device=values_n.device)],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=lr,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        listing.values_n.grad = None

    def project(self, kept: float) -> None:
        """Keep the listed values that `magnitude.project` would keep, and write them to the weight."""
        keep = self.keep(kept)
        values_n = self.listing.values_n.detach()
        if kernel := kernel_for("listed_projection", values_n):
            kernel(self.listing, keep, self.at_least, self.axis, self.channels)
            self.listing.write(self.weight)
            return
        self.listing.write(self.weight)
        project(self.weight, keep / self.weight.numel(), self.axis, self.at_least)
        self.listing.read(self.weight)

    def _grow(self, dense_oi: Tensor, kept: float, beta1: float, eps: float) -> None:
        """Renew the list from the whole weight's gradient.

        1. The nonzeros and the better half of the other listed entries stay; an entry is the better, the
           larger the step that its moments ask for.
        2. The zeros whose gradient is largest, over the root of its estimated mean square, fill the list. For
           them AdamW would take nearly the largest steps. Their first moment starts at 0 and their second at
           that mean square, as after a long time of such gradients that cancelled out.
        """
        listing, flat = self.listing, dense_oi.view(-1)
        old_n, values_n = listing.index_n, listing.values_n.detach()
        new = float(flat.square().sum()), float(flat[old_n].square().sum())
        whole, part = self.norms or new
        self.norms = (whole + NEW * (new[0] - whole), part + NEW * (new[1] - part))
        length, keep = self.length(kept), self.keep(kept)
        score_n = self.m_n.abs() / (self.v_n.sqrt() + eps)
        score_n[values_n != 0] = torch.inf
        stay = min(len(old_n), max(int((values_n != 0).sum()), (keep + length) // 2))
        if stay < len(old_n):
            stays_n = score_n.topk(stay, sorted=False).indices
        else:
            stays_n = torch.arange(len(old_n), device=old_n.device)
        self.note_squares(dense_oi.square())
        scale = 1 / self.row_o.mean().clamp(min=1e-30)
        size = (scale * self.row_o).sqrt()[:, None] * self.column_i.sqrt()
        size.add_(eps).reciprocal_().mul_(dense_oi).abs_()
        size.view(-1)[old_n[stays_n]] = 0
        picked = largest(size, max(0, length - stay))
        index_n = torch.cat([old_n[stays_n], picked]).sort().values
        place_n = torch.searchsorted(old_n, index_n).clamp(max=len(old_n) - 1)
        known_n = old_n[place_n] == index_n
        gradient_n = flat[index_n]
        self.m_n = torch.where(known_n, self.m_n[place_n], 0)
        square_n = (
            scale * self.row_o[index_n // len(self.column_i)] * self.column_i[index_n % len(self.column_i)]
        )
        self.v_n = torch.where(known_n, self.v_n[place_n], square_n)
        listing.relist(self.weight, index_n)
        listing.values_n.grad = gradient_n

    def note_squares(self, square_oi: Tensor) -> None:
        """Add the squared gradients of one step to the moving averages of rows and columns.

        As in Adafactor (Shazeer & Stern 2018), the estimated mean square of an entry is the product of its
        row's and its column's, over the mean of all: two vectors in place of a moment of every entry.
        """
        for mean, new in ((self.row_o, square_oi.mean(1)), (self.column_i, square_oi.mean(0))):
            mean += (NEW if mean.any() else 1) * (new - mean)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the weight itself."""
        names = ("m_n", "v_n", "norms", "row_o", "column_i")
        return {"index_n": self.listing.index_n, **{name: getattr(self, name) for name in names}}

    def load(self, state: dict[str, Any]) -> None:
        self.listing.relist(self.weight, state["index_n"].to(self.weight.device))
        self.m_n, self.v_n, self.norms = state["m_n"], state["v_n"], state["norms"]
        self.row_o, self.column_i = state["row_o"], state["column_i"]
        self._to(self.weight.device)

    def _to(self, device: torch.device) -> None:
        self.listing.relist(self.weight, self.listing.index_n.to(device))
        self.m_n, self.v_n = self.m_n.to(device), self.v_n.to(device)
        self.row_o, self.column_i = self.row_o.to(device), self.column_i.to(device)


def largest(size_oi: Tensor, count: int) -> Tensor:
    """Return the ascending flat positions of the `count` largest entries, fewer if fewer are above 0.

    The sizes, which must not be negative, are overwritten.
    """
    if count < size_oi.numel():
        project(size_oi, count / size_oi.numel())
    return size_oi.view(-1).nonzero().squeeze(1)
