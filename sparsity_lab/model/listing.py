"""Listed weights: the entries of a matrix that training changes until its next dense gradient.

A sparsity method attaches a `Listing` to a weight. Entries outside the list are zero and stay zero. A kernel
that finds a listing multiplies by the nonzeros among its values, and differentiates by these values instead
of by the whole matrix. Without a kernel the plain operations use the weight itself, which always holds the
same numbers.

Shape suffixes: o outputs (rows of the weight), i inputs (columns), n listed entries in row-major order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsity_lab.model.dispatch import kernel_for

_ATTRIBUTE = "listing"


class Listing:
    """The listed entries of one weight (o, i).

    `index_n`: positions in the flattened weight, int64, ascending. `starts` and `columns_n`: the same in
    compressed rows, int32; row r has the entries starts[r] : starts[r + 1]. `values_n`: the entries'
    values, float32, some of which may be zero; the gradient of a listed weight is `values_n.grad`.
    `wants_dense`: whether the next backward pass gives the whole weight's gradient instead.
    """

    def __init__(self, weight: Tensor, index_n: Tensor) -> None:
        self.wants_dense = False
        self.values_n = torch.empty(0)
        self.relist(weight, index_n)

    def relist(self, weight: Tensor, index_n: Tensor) -> None:
        """Replace the list; the values are read from the weight."""
        rows, columns = weight.shape
        self.index_n = index_n
        first = torch.arange(rows + 1, device=index_n.device) * columns
        self.starts = torch.searchsorted(index_n, first).int()
        self.columns_n = (index_n % columns).int()
        self.values_n = weight.detach().view(-1)[index_n].requires_grad_()

    def read(self, weight: Tensor) -> None:
        """Set the values from the weight."""
        torch.index_select(weight.detach().view(-1), 0, self.index_n, out=self.values_n.detach())

    def write(self, weight: Tensor) -> None:
        """Set the weight's entries to the values."""
        weight.detach().view(-1).index_copy_(0, self.index_n, self.values_n.detach())


def attach(weight: nn.Parameter, listing: Listing | None) -> None:
    """Attach `listing` to `weight`, or remove the one it has."""
    setattr(weight, _ATTRIBUTE, listing)


def listing_of(weight: Tensor) -> Listing | None:
    """Return the weight's listing, if it has one."""
    found: Listing | None = getattr(weight, _ATTRIBUTE, None)
    return found


class Embedding(nn.Embedding):
    """`nn.Embedding` that, in training, may use a kernel for a listed weight."""

    def forward(self, input: Tensor) -> Tensor:
        trained = self.training and torch.is_grad_enabled() and self.weight.requires_grad
        kernel = kernel_for("embedding", self.weight) if trained else None
        return super().forward(input) if kernel is None else kernel(input, self.weight)
