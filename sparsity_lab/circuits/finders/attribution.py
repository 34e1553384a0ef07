"""Circuits by attribution, the baseline that learned masks are measured against (Gao et al. 2025, Fig. 31).

1. a node's attribution is the size of the change in the right answer's logit lead that its gate makes, to
   first order: gradient × (activation - mean), summed over positions, mean over the training pairs;
2. "gradient" takes the slope in the whole model, "integrated" the mean slope on the straight way from all
   nodes frozen at their means to the whole model (integrated gradients);
3. the nodes of largest attribution are kept, as few as meet the target.
"""

from typing import Literal

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.evaluator import Provenance, Pruner, PruningConfig, make_circuit
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.taps import scale_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import PairSampler, TaskBatch, logit_difference

Method = Literal["gradient", "integrated"]
PAIRS = 64  # training pairs that attribution is taken over


def attribution(
    model: Transformer, means_n: Tensor, batch: TaskBatch, method: Method, steps: int = 8
) -> Tensor:
    """Attribution of every node (n): the slope of the mean logit lead of the right answer in its gate."""
    layout = NodeLayout(model.config)
    gates = [1.0] if method == "gradient" else [(step + 0.5) / steps for step in range(steps)]
    total_n = torch.zeros(layout.size)
    sign_b = torch.where(batch.label_b == 0, 1.0, -1.0)
    for gate in gates:
        gate_n = torch.full((layout.size,), gate, requires_grad=True)
        logit_diff_b = logit_difference(model, batch, scale_nodes(layout, gate_n, means_n))
        (slope_n,) = torch.autograd.grad((sign_b * logit_diff_b).mean(), gate_n)
        total_n += slope_n
    return total_n / len(gates)


def attribution_circuits(
    pruner: Pruner, task: str, model_name: str, config: PruningConfig, method: Method
) -> list[Circuit]:
    """For each target the nodes of largest attribution, as few as bisection finds, that meet it.

    The smallest number is found as after mask learning, and nodes that can go are dropped if `config.polish`.
    """
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "attribution"))
    sampler = PairSampler(pruner.data.train, PAIRS, generator)
    order_n = attribution(pruner.model, pruner.means_n, sampler.draw(), method).abs()
    order_n = order_n.argsort(descending=True, stable=True)
    circuits = []
    for target, kept_n in pruner.smallest_prefixes(order_n, config.all_targets).items():
        polished_n = pruner.polish(kept_n, target) if config.polish else kept_n
        provenance: Provenance = {
            "method": method,
            "selection": config.selection,
            "nodes_before_polish": int(kept_n.sum()),
        }
        circuits.append(make_circuit(pruner, polished_n, task, model_name, target, provenance))
    return circuits
