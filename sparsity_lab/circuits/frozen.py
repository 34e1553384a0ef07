"""The values at which the nodes outside a circuit are frozen (`pruning.ablation`).

Shape suffixes: n all nodes of a model, b rows, t tokens.
"""

import torch
from torch import Tensor

from sparsity_lab.circuits.config import Ablation
from sparsity_lab.circuits.nodes import mean_activations
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch


def frozen_values(ablation: Ablation, model: Transformer, means_n: Tensor, train: TaskBatch) -> Tensor:
    """Return the value of every node (n): its mean over text, zero, or its mean over the training prompts.

    `means_n` are the means over text. Every position of a training prompt counts, and no padding. Values on
    the other prompt are zeros, which is what `beside_whole.py` makes of them.
    """
    if ablation in ("zero", "other_prompt"):
        return torch.zeros_like(means_n)
    if ablation == "task_mean":
        lengths = train.last_b + 1
        rows = [train.tokens_bt[lengths == length, :length] for length in lengths.unique().tolist()]
        return mean_activations(model, rows)
    return means_n
