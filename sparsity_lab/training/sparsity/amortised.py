"""Magnitude pruning at the price of its nonzeros: dense gradients are rare, and all else is done on a list.

The exact method (`magnitude`) updates every weight in every step, although nearly all are zero. This method
trains each matrix by a list: its nonzeros and, for each, `candidates` zeros.

1. In every step, gradient, AdamW's moments, update and projection are computed for listed entries. Among
   them the step is that of the exact method: a candidate whose update exceeds the smallest nonzero enters.
2. Every `dense_every` steps a matrix gets its whole gradient. Its nonzeros and the better half of its
   candidates stay; the zeros for which AdamW would take nearly the largest steps become the other half
   (`training/listed/weight.py`). The matrices take turns.
3. Training starts with all weights, or with `start` times the final number of nonzeros, chosen by magnitude
   from the initial weights, and reaches the final number at `anneal_until`. While a list would hold more than
   LISTED of a matrix, steps are the exact method's.

Gao et al. (2025, App. B) suggest amortising the choice of weights, as RigL does, and do not try it. Biases
and position embeddings are small and always follow the exact method. At kept fraction 1 training is dense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat, PositiveInt, field_validator

from sparsity_lab.training.sparsity.sparsifier import BudgetConfig, ShareOfTraining

if TYPE_CHECKING:
    from sparsity_lab.model.transformer import Transformer
    from sparsity_lab.training.sparsity.sparsifier import Sparsifier

METHOD = 2  # raise when the same config would give another model
LISTED = 0.25  # largest share of a matrix that is trained by lists; above it dense products are faster


class Config(BudgetConfig):
    """Settings of the amortised method.

    `start`: number of nonzeros at the start, as a multiple of the final number; None: all weights.
    `anneal_until`: fraction of training over which the number falls to its final value.
    `anneal`: whether it falls linearly or by an equal factor per step.
    `dense_every`: steps between two whole gradients of a matrix.
    `candidates`: zeros listed per nonzero.
    """

    kind: Literal["amortised"] = "amortised"
    start: float | None = None
    anneal_until: ShareOfTraining = 0.5
    anneal: Literal["linear", "geometric"] = "geometric"
    dense_every: PositiveInt = 16
    candidates: PositiveFloat = 1.0

    @field_validator("start")
    @classmethod
    def _not_fewer(cls, start: float | None) -> float | None:
        if start is not None and not 1 <= start < float("inf"):
            raise ValueError("must be at least 1")
        return start

    def kept_at(self, progress: float, final: float) -> float:
        """Return the kept fraction: from `start` · `final`, at most 1, to `final` at `anneal_until`."""
        first = 1.0 if self.start is None else min(1.0, self.start * final)
        if self.anneal_until <= 0 or progress >= self.anneal_until:
            return final
        share = progress / self.anneal_until
        if self.anneal == "geometric":
            return first * (final / first) ** share
        return first + (final - first) * share

    def lists_at(self, kept: float) -> bool:
        """Return whether matrices are trained by lists at this kept fraction."""
        return kept * (1 + self.candidates) <= LISTED

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"version": METHOD}

    @property
    def label(self) -> str:
        return f"amortised-{super().label}"


def make(config: Config, model: Transformer, n_steps: int, seed: int) -> Sparsifier:
    """Build the sparsifier, and project the model to its first kept fraction."""
    from sparsity_lab.training.listed.amortised import Amortised

    return Amortised(config, model, n_steps)
