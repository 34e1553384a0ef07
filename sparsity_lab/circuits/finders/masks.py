"""Which nodes a task needs, learned as one gate per node (Gao et al. 2025, §2.2, App. A.5).

1. every node has a parameter tau in [-1, 1]; where tau > 0 its gate is open, else it is frozen at its mean;
2. minimise two-way cross-entropy + coefficient · (number of open gates), by AdamW with clipped gradients;
3. the paper fixes the coefficient and searches it per model and task. Here it is, by default, a multiplier
   that rises while the loss is below the target and falls while above, so that each task finds its own;
4. gates that have shut firmly are dropped for good, and the model computes without them;
5. hardened (`restore`): in every other step some of the other nodes are restored, so that a set of nodes
   that only works while all the rest is frozen at its means does not last.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from sparsity_lab.circuits.calibration import two_way_loss
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.gates import gate_nodes, heaviside_slope
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.restoration import Restoration
from sparsity_lab.core.config import Config
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import PairSampler, TaskBatch, logit_difference


class MaskConfig(Config):
    """Mask learning. `penalty` "fixed" is the paper's; "target" adapts `k_coef` to hold the loss at `target`.

    `start` "noise" is the paper's: all gates alike but for noise. `rate`: by how much log k_coef may rise in
    a step. `drop_below`: the tau below which a node is gone for good (-1: never). `restore`: in every other
    step a random subset of the shut nodes is restored, each with a probability drawn up to this (0: none), or
    with `adversarial` those of them that raise the loss, by the gradient of an earlier step.
    """

    steps: PositiveInt = 200
    pairs: PositiveInt = 16
    learning_rate: PositiveFloat = 0.03
    warmup: float = 0.05
    weight_decay: float = 1e-3
    beta2: float = 0.95
    temperature: PositiveFloat = 1.0
    noise_scale: float = 0.01
    noise_bias: float = 0.1
    start: Literal["attribution", "noise"] = "attribution"
    k_coef: PositiveFloat = 1e-3
    penalty: Literal["target", "fixed"] = "target"
    target: PositiveFloat = 0.1
    rate: float = 0.05
    drop_below: float = -0.5
    drop_every: PositiveInt = 25
    restore: float = Field(default=0.0, ge=0, le=1)
    adversarial: bool = False


@dataclass(frozen=True)
class LearnedMasks:
    """tau of every node, flat; the loss and number of open gates at each step, and the last coefficient."""

    tau_n: Tensor
    losses: tuple[float, ...]
    sizes: tuple[int, ...]
    k_coef: float


def learn_masks(
    model: Transformer,
    means_n: Tensor,
    batch: TaskBatch,
    config: MaskConfig,
    seed: int,
    give_up: float | None = None,
) -> LearnedMasks:
    """Learn the gates of one task on the training pairs in `batch`.

    `model`'s weights must not require gradients; `means_n` holds what shut nodes are frozen at. With
    `give_up` training ends if the smoothed loss is above twice that after an eighth of the steps, or above
    it after a quarter.
    """
    layout = NodeLayout(model.config)
    generator = torch.Generator().manual_seed(derive_seed(seed, "masks"))
    sampler = PairSampler(batch, config.pairs, generator)
    noise_n = config.noise_scale * torch.randn(layout.size, generator=generator)
    tau_n = config.noise_bias + noise_n
    if config.start == "attribution":
        tau_n += (1 - config.noise_bias) * attribution_order(
            model, means_n, [sampler.draw() for _ in range(4)]
        )
    tau_n = tau_n.clamp(-1, 1).requires_grad_()
    live_n = torch.ones(layout.size, dtype=torch.bool)
    optimizer = torch.optim.AdamW(
        [tau_n],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    small, k_coef, smoothed = compact(model, live_n, means_n), config.k_coef, None
    restoration = Restoration(config.restore, config.adversarial, layout.size, derive_seed(seed, "restored"))
    limits = {config.steps // 8: 2, config.steps // 4: 1}
    losses, sizes = [], []
    for step in range(config.steps):
        rising = (step + 1) / max(1.0, config.warmup * config.steps)
        optimizer.param_groups[0]["lr"] = config.learning_rate * min(1.0, rising) * (1 - step / config.steps)
        rows = sampler.draw()
        restored_n = restoration.draw(step)
        net = small if restored_n is None else compact(model, live_n | restored_n, means_n)
        open_n = tau_n if restored_n is None else torch.where(restored_n, torch.ones(()), tau_n)
        tap = gate_nodes(layout, open_n, means_n, config.temperature)
        loss = two_way_loss(logit_difference(net, rows, tap), rows.label_b)
        optimizer.zero_grad()
        loss.backward()
        assert tau_n.grad is not None
        restoration.saw(tau_n.grad)
        with torch.no_grad():
            tau_n.grad += k_coef * heaviside_slope(tau_n, config.temperature)
            tau_n.grad *= live_n
            tau_n.grad /= tau_n.grad.norm().clamp(min=1.0)
        optimizer.step()
        with torch.no_grad():
            tau_n.clamp_(-1, 1)
            tau_n[~live_n] = -1
        losses.append(loss.item())
        sizes.append(int((tau_n > 0).sum()))
        smoothed = losses[-1] if smoothed is None else 0.8 * smoothed + 0.2 * losses[-1]
        if config.penalty == "target":
            error = (config.target - smoothed) / config.target
            k_coef *= math.e ** (config.rate * max(-3.0, min(1.0, error)))
        if give_up is not None and smoothed > give_up * limits.get(step + 1, math.inf):
            break
        if (step + 1) % config.drop_every == 0:
            live_n = live_n & (tau_n.detach() >= config.drop_below)
            small = compact(model, live_n, means_n)
    return LearnedMasks(tau_n.detach(), tuple(losses), tuple(sizes), k_coef)


def attribution_order(model: Transformer, means_n: Tensor, batches: list[TaskBatch]) -> Tensor:
    """From 1 for the node of largest gradient attribution down to 0, by the logarithm of its rank (n).

    Attribution is the size of the loss's slope in a node's gate, all gates open. Gates that start so shut one
    after another, the least important first. Started all alike, those of a task that the model answers with
    certainty shut together, since its loss hardly has a gradient, and a chain of shut gates passes none that
    could open it again.
    """
    tau_n = torch.ones_like(means_n, requires_grad=True)
    tap = gate_nodes(NodeLayout(model.config), tau_n, means_n, 1.0)
    for rows in batches:
        two_way_loss(logit_difference(model, rows, tap), rows.label_b).backward()
    assert tau_n.grad is not None
    rank_n = tau_n.grad.abs().argsort(descending=True, stable=True).argsort()
    return 1 - (1 + rank_n).log() / torch.tensor(float(len(rank_n))).log()
