"""A circuit without each of its nodes: what a single node does in it."""

import torch
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import sublayer_boundary
from sparsity_lab.model.taps import ablate, with_residuals
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, by_length, logit_difference_at_end


@torch.no_grad()
def differences_without_each(
    model: Transformer, kept_n: Tensor, values_n: Tensor, batch: TaskBatch, rows: int = 64
) -> Tensor:
    """Two-way logits (k, b) of the circuit `kept_n` with one of its nodes frozen too, for each, in order.

    `model` may be narrowed to the circuit. A node's absence changes nothing before the sublayer it belongs
    to, so the circuit's own residual stream there is where each pass begins.
    """
    layout = NodeLayout(model.config)
    boundaries = {
        index: sublayer_boundary(group.site, group.layer)
        for group in layout.groups
        for index in (kept_n[group.start : group.stop].nonzero().flatten() + group.start).tolist()
    }

    def without(index: int) -> Tensor:
        return kept_n.index_fill(0, torch.tensor(index), False)

    def compute(part: TaskBatch) -> Tensor:
        _, streams = with_residuals(model, part.tokens_bt, ablate(layout, kept_n, values_n))
        return torch.stack(
            [
                logit_difference_at_end(
                    model, part, ablate(layout, without(index), values_n), (boundary, streams[boundary])
                )
                for index, boundary in boundaries.items()
            ]
        )

    return by_length(batch, rows, compute)
