"""A circuit's logit differences, from which each of its losses, scores and checks is computed."""

import torch
from torch import Tensor

from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference


@torch.no_grad()
def circuit_difference(
    model: Transformer,
    kept_n: Tensor,
    values_n: Tensor,
    batch: TaskBatch,
    closed: bool = False,
    compacted: Transformer | None = None,
) -> Tensor:
    """Return the logit differences (b) of `batch` with all nodes outside `kept_n` frozen at `values_n`.

    With `closed`, weights into nodes outside `kept_n` are zero (`closing.py`). `compacted` is the model
    compacted to a superset of `kept_n`, where the caller has it; it must be closed if the circuit is.
    """
    narrow = compact(model, kept_n, values_n, closed) if compacted is None else compacted
    return logit_difference(narrow, batch, ablate(NodeLayout(model.config), kept_n, values_n))
