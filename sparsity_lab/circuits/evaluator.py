"""The loss of a set of nodes on a task's pairs, with all other nodes frozen (Gao et al. 2025, §2.2).

The loss on the selection pairs chooses a circuit. It is either the raw loss or, as in the paper, the loss
after a scale and shift fitted to these pairs for each set (App. A.5). The test pairs are held out from the
choice. Losses are computed in a compacted model (`compaction.py`), which is faster and equivalent.

Shape suffixes: n all nodes, b rows of a task's batch.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sparsity_lab.circuits.circuit import Calibration, Scores
from sparsity_lab.circuits.closing import closing_matters
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.config import Selection
from sparsity_lab.circuits.difference import circuit_difference
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, first_pairs


@dataclass(frozen=True)
class TaskData:
    """The three splits of one task, encoded."""

    train: TaskBatch
    select: TaskBatch
    test: TaskBatch


@dataclass(frozen=True)
class CircuitEvaluator:
    """Evaluates sets of kept nodes, boolean (n), of one model on one task.

    `means_n`: the values at which all other nodes are frozen (n).
    `restored`: random sets of nodes, boolean (n), for a hardened search; empty otherwise. They change the
    selection loss to the larger of two: the circuit's own loss, and its mean loss when each of these sets is
    unfrozen as well.
    `closed`: weights into dropped nodes are zero (`closing.py`).
    `partner_n`: the node that each node is kept or dropped with (`tying.py`).
    `memory`: what searches with the same model, means and data share, as a finder's results.
    """

    model: Transformer
    means_n: Tensor
    data: TaskData
    selection: Selection
    restored: tuple[Tensor, ...] = ()
    closed: bool = False
    partner_n: Tensor | None = None
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def compacted(self, kept_n: Tensor) -> Transformer:
        """Return the model compacted to `kept_n`, closed if circuits are."""
        return compact(self.model, kept_n, self.means_n, self.closed)

    def logit_difference(self, kept_n: Tensor, batch: TaskBatch, wider: Transformer | None = None) -> Tensor:
        """Return logit differences (b) with all but `kept_n` frozen.

        `wider` may be the model compacted to a superset of `kept_n`. A closed circuit needs fewer weights.
        """
        closes = self.closed and closing_matters(self.model.config)
        compacted = None if closes else wider
        return circuit_difference(self.model, kept_n, self.means_n, batch, self.closed, compacted)

    def select_loss(self, kept_n: Tensor, wider: Transformer | None = None) -> float:
        """Return the loss in nats that has to meet the target: the selection loss, or a larger one.

        A calibrated loss must also hold on training pairs: a large scale hides rare errors from a few pairs.
        """
        select = self.data.select
        logit_diff_b = self.logit_difference(kept_n, select, wider)
        calibration = self.calibration(logit_diff_b)
        losses = [score(logit_diff_b, select.label_b, calibration).selection_loss]
        if self.restored:
            more = [self.logit_difference(kept_n | more_n, select) for more_n in self.restored]
            losses.append(fmean(score(b, select.label_b, calibration).selection_loss for b in more))
        if self.selection == "calibrated":
            check = first_pairs(self.data.train, CHECK_PAIRS * (len(select.label_b) // 2))
            check_b = self.logit_difference(kept_n, check, wider)
            losses.append(score(check_b, check.label_b, calibration).selection_loss)
        return max(losses)

    def calibration(self, logit_diff_b: Tensor) -> Calibration:
        """Fit the calibration on the selection pairs; the identity if selection is by the raw loss."""
        if self.selection == "raw":
            return IDENTITY
        return calibrate(logit_diff_b, self.data.select.label_b)

    def scores(self, kept_n: Tensor) -> tuple[Calibration, Scores, Scores]:
        """Return the calibration, and the scores on the selection and test pairs under it."""
        select_b = self.logit_difference(kept_n, self.data.select)
        test_b = self.logit_difference(kept_n, self.data.test)
        calibration = self.calibration(select_b)
        select = score(select_b, self.data.select.label_b, calibration)
        return calibration, select, score(test_b, self.data.test.label_b, calibration)

    def unpruned(self) -> tuple[Scores, Scores]:
        """Return the whole model's scores on the selection and test pairs."""
        _, select, test = self.scores(torch.ones_like(self.means_n, dtype=torch.bool))
        return select, test


IDENTITY = Calibration(scale=1.0, shift=0.0)
MAX_SCALE = 1e4
CHECK_PAIRS = 3  # training pairs that check a calibrated loss, for each selection pair


def two_way_loss(logit_diff_b: Tensor, label_b: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats over a pair's two answers.

    `logit_diff_b` is the logit of the positive prompt's answer minus that of the negative prompt's.
    `label_b` is 0 for rows whose right answer is the positive prompt's, and 1 for the others.
    """
    return softplus(torch.where(label_b == 0, -logit_diff_b, logit_diff_b)).mean()


def calibrate(logit_diff_b: Tensor, label_b: Tensor) -> Calibration:
    """Fit the scale and shift of the logit difference that minimise the loss, at most the raw loss.

    The fit takes 16 L-BFGS steps on standardised logit differences. The scale is at most `MAX_SCALE`, since a
    larger one would turn the rounding of float32 logits into an answer.
    """
    logit_diff_b = logit_diff_b.double()
    spread, middle = logit_diff_b.std(correction=0).clamp(min=1e-12), logit_diff_b.mean()
    limit = MAX_SCALE * spread.item()
    parameters = torch.tensor([1.0 if limit > 1 else 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    standard_b = (logit_diff_b - middle) / spread
    optimizer = torch.optim.LBFGS([parameters], max_iter=16, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = two_way_loss(parameters[0].clamp(-limit, limit) * standard_b + parameters[1], label_b)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scale = parameters[0].clamp(-limit, limit).item() / spread.item()
    fitted = Calibration(scale=scale, shift=parameters[1].item() - scale * middle.item())
    better = score(logit_diff_b, label_b, fitted)
    return fitted if better.selection_loss < better.raw_loss else IDENTITY


def score(logit_diff_b: Tensor, label_b: Tensor, calibration: Calibration) -> Scores:
    """Return the raw loss, the accuracy, and the loss under `calibration`."""
    logit_diff_b = logit_diff_b.double()
    right_b = (logit_diff_b > 0) == (label_b == 0)
    calibrated_b = calibration.scale * logit_diff_b + calibration.shift
    return Scores(
        raw_loss=two_way_loss(logit_diff_b, label_b).item(),
        selection_loss=two_way_loss(calibrated_b, label_b).item(),
        accuracy=right_b.double().mean().item(),
    )
