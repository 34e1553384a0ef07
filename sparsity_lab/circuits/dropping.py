"""A circuit without each of its nodes: what a single node does in it."""

import torch
from torch import Tensor

from sparsity_lab.circuits.ablation import NodeLayout, ablate
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.masks import difference_at_end, rows_of
from sparsity_lab.circuits.task import TaskBatch
from sparsity_lab.model.residuals import with_residuals
from sparsity_lab.model.transformer import Transformer


@torch.no_grad()
def differences_without_each(
    model: Transformer, kept_n: Tensor, values_n: Tensor, batch: TaskBatch, rows: int = 64
) -> Tensor:
    """Two-way logits (k, b) of the circuit `kept_n` with one of its nodes frozen too, for each, in order.

    A node's absence changes nothing before the sublayer it belongs to, so the circuit's own residual stream
    there is where each pass begins.
    """
    layout = NodeLayout(model.config)
    narrow, circuit = compact(model, kept_n, values_n), ablate(layout, kept_n, values_n)
    boundaries = {
        index: 2 * group.layer + group.site.value.startswith("mlp")
        for group in layout.groups
        for index in (kept_n[group.start : group.stop].nonzero().flatten() + group.start).tolist()
    }
    order_b = batch.last_b.argsort(stable=True)
    parts = []
    for chunk in order_b.split(rows):
        part = rows_of(batch, chunk)
        _, streams = with_residuals(narrow, part.tokens_bt[:, : int(part.last_b.max()) + 1], circuit)
        parts.append(
            torch.stack(
                [
                    difference_at_end(
                        narrow,
                        part,
                        ablate(layout, kept_n.index_fill(0, torch.tensor(index), False), values_n),
                        (boundary, streams[boundary]),
                    )
                    for index, boundary in boundaries.items()
                ]
            )
        )
    return torch.cat(parts, 1)[:, order_b.argsort()]
