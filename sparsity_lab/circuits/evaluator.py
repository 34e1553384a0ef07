"""The loss of a set of nodes on a task's pairs, the others frozen at their means (Gao et al. 2025, §2.2).

The selection pairs choose a circuit: their raw loss, or, as in the paper, the loss after a scale and a shift
that are fitted to them for each set (App. A.5). The test pairs have no part in the choice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsity_lab.circuits.ablation import ablate
from sparsity_lab.circuits.calibration import IDENTITY, calibrate, score
from sparsity_lab.circuits.circuit import Calibration, Scores
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.config import Selection
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference


@dataclass(frozen=True)
class TaskData:
    """The three splits of one task, encoded."""

    train: TaskBatch
    select: TaskBatch
    test: TaskBatch


@dataclass(frozen=True)
class CircuitEvaluator:
    """A model, the nodes' frozen values (n) and the task: evaluates sets of kept nodes, boolean (n).

    `restored`: subsets of all nodes, boolean (n); a set of kept nodes must meet the target by itself and, on
    average, with those nodes of each subset restored that lie outside the set.
    """

    model: Transformer
    means_n: Tensor
    data: TaskData
    selection: Selection
    restored: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def logit_difference(self, kept_n: Tensor, batch: TaskBatch, model: Transformer | None = None) -> Tensor:
        """Logit differences (b) with all but `kept_n` frozen; `model`: one already narrowed to them."""
        narrow = compact(self.model, kept_n, self.means_n) if model is None else model
        return logit_difference(narrow, batch, ablate(NodeLayout(self.model.config), kept_n, self.means_n))

    def select_loss(self, kept_n: Tensor, model: Transformer | None = None) -> float:
        """Loss on the selection pairs, in nats: what has to meet the target."""
        select = self.data.select
        logit_diff_b = self.logit_difference(kept_n, select, model)
        calibration = self.calibration(logit_diff_b)
        loss = score(logit_diff_b, select.label_b, calibration).selection_loss
        restored = [
            score(self.logit_difference(kept_n | more_n, select), select.label_b, calibration).selection_loss
            for more_n in self.restored
        ]
        return max(loss, sum(restored) / len(restored)) if restored else loss

    def calibration(self, logit_diff_b: Tensor) -> Calibration:
        """What losses are measured under: fitted on the selection pairs, or none for a raw selection."""
        if self.selection == "raw":
            return IDENTITY
        return calibrate(logit_diff_b, self.data.select.label_b)

    def scores(self, kept_n: Tensor) -> tuple[Calibration, Scores, Scores]:
        """The calibration for the selection pairs, and the scores on selection and test pairs under it."""
        select_b = self.logit_difference(kept_n, self.data.select)
        test_b = self.logit_difference(kept_n, self.data.test)
        calibration = self.calibration(select_b)
        return (
            calibration,
            score(select_b, self.data.select.label_b, calibration),
            score(test_b, self.data.test.label_b, calibration),
        )

    def unpruned(self) -> tuple[Scores, Scores]:
        """Scores of the whole model on the selection and test pairs."""
        _, select, test = self.scores(torch.ones_like(self.means_n, dtype=torch.bool))
        return select, test
