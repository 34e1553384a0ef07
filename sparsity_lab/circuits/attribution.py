"""First-order attribution of a task to the model's nodes.

A node's attribution is the derivative of the logit difference, right minus wrong answer, with respect to the
node's gate: gradient × (activation - mean), summed over positions and averaged over pairs. There are two ways
to take the derivative:
- "gradient" takes it in the whole model;
- "integrated" averages it along the straight line from all nodes frozen at their means to the whole model
  (integrated gradients).

`mask_learning.attribution_order` uses the derivative of the loss instead, to initialise the gates.
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
    """Return the attribution of every node (n): the derivative of the mean logit difference in its gate.

    An integrated slope averages over `steps` gate values between 0 and 1.
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
