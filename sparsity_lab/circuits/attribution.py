"""How much each node matters to a task, to first order.

- `attribution`: the slope of the right answer's logit lead in a node's gate, gradient × (activation - mean),
  summed over positions, mean over pairs. "gradient" takes the slope in the whole model, "integrated" the mean
  slope on the straight way from all nodes frozen at their means to the whole model (integrated gradients).
- `attribution_order`: where mask learning starts its gates, by the slope of the loss.
"""

from typing import Literal

import torch
from torch import Tensor

from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.taps import scale_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference

Slope = Literal["gradient", "integrated"]


def attribution(
    model: Transformer, means_n: Tensor, batch: TaskBatch, slope: Slope, steps: int = 8
) -> Tensor:
    """Attribution of every node (n): the slope of the mean logit lead of the right answer in its gate.

    `steps`: how many gates between 0 and 1 an integrated slope is the mean of.
    """
    layout = NodeLayout(model.config)
    gates = [1.0] if slope == "gradient" else [(step + 0.5) / steps for step in range(steps)]
    total_n = torch.zeros(layout.size)
    sign_b = torch.where(batch.label_b == 0, 1.0, -1.0)
    for gate in gates:
        gate_n = torch.full((layout.size,), gate, requires_grad=True)
        logit_diff_b = logit_difference(model, batch, scale_nodes(layout, gate_n, means_n))
        (slope_n,) = torch.autograd.grad((sign_b * logit_diff_b).mean(), gate_n)
        total_n += slope_n
    return total_n / len(gates)
