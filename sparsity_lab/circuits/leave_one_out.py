"""Leave-one-out ablation: a circuit's logit differences with each of its nodes frozen in turn."""

import torch
from torch import Tensor

from sparsity_lab.circuits.closing import closing_matters
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.sites import sublayer_boundary
from sparsity_lab.model.taps import ablate, with_residuals
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, by_length, logit_difference_at_end


@torch.no_grad()
def differences_without_each(
    model: Transformer, kept_n: Tensor, values_n: Tensor, batch: TaskBatch, closed: bool, rows: int = 64
) -> Tensor:
    """Return logit differences (k, b) of the circuit `kept_n`, with each of its nodes frozen in turn.

    `closed` says whether the circuit is (`closing.py`). Freezing a node changes nothing before the node's own
    sublayer, so each pass starts there, from the circuit's residual stream.
    """
    layout = NodeLayout(model.config)
    narrow = compact(model, kept_n, values_n, closed)
    closes = closed and closing_matters(model.config)
    boundaries = {
        index: sublayer_boundary(group.site, group.layer)
        for group in layout.groups
        for index in (kept_n[group.start : group.stop].nonzero().flatten() + group.start).tolist()
    }

    def without(index: int) -> Tensor:
        return kept_n.index_fill(0, torch.tensor(index), False)

    def net(index: int) -> Transformer:
        """Without competition, the model compacted to the circuit also serves with a node fewer."""
        return compact(model, without(index), values_n, closed) if closes else narrow

    def compute(part: TaskBatch) -> Tensor:
        _, streams = with_residuals(narrow, part.tokens_bt, ablate(layout, kept_n, values_n))
        return torch.stack(
            [
                logit_difference_at_end(
                    net(index), part, ablate(layout, without(index), values_n), (boundary, streams[boundary])
                )
                for index, boundary in boundaries.items()
            ]
        )

    return by_length(batch, rows, compute)
