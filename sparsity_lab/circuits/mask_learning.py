"""Mask learning: one learned gate per node (Gao et al. 2025, §2.2, App. A.5).

1. Every node has a parameter tau in [-1, 1]. Its gate is open if tau > 0; otherwise it is frozen at its mean.
2. AdamW with clipped gradients minimises two-way cross-entropy + k · (number of open gates). The backward
   pass treats a gate as sigmoid(tau / temperature), so the penalty's gradient is k times the sigmoid's slope.
3. The paper fixes k and searches it per model and task. By default, k here is a multiplier that rises while
   the loss is below `finder.target` and falls while it is above, so each task settles on its own k.
4. Gates that are firmly shut are dropped for good. The compacted model computes without them, which is faster
   and exact up to rounding.
5. With `restore` (hardened), some shut nodes are restored in every other step. This breaks sets of nodes that
   only work while all other nodes are frozen at their means.

Shape suffixes: n all nodes, b batch, t time, c channels of a site.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.config import MaskLearningConfig
from sparsity_lab.circuits.evaluator import two_way_loss
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.restoration import Restoration
from sparsity_lab.circuits.tying import average
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.taps import freeze, on_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import PairSampler, TaskBatch, logit_difference


@dataclass(frozen=True)
class LearnedMasks:
    """The learned tau of every node (n), each step's loss and number of open gates, and the final k."""

    tau_n: Tensor
    losses: tuple[float, ...]
    sizes: tuple[int, ...]
    k_coef: float


def learn_masks(
    model: Transformer,
    means_n: Tensor,
    batch: TaskBatch,
    config: MaskLearningConfig,
    seed: int,
    closed: bool,
    partner_n: Tensor | None = None,
) -> LearnedMasks:
    """Learn the gates of one task on the training pairs in `batch`.

    The weights of `model` must not require gradients. Shut nodes are frozen at `means_n`. A training that
    stopped early has fewer losses than `config.steps`. With `closed`, weights into nodes dropped for good are
    zero (`closing.py`); gates that may reopen need theirs. Partners in `partner_n` share a gate (`tying.py`).
    """
    layout = NodeLayout(model.config)
    generator = torch.Generator().manual_seed(derive_seed(seed, "masks"))
    sampler = PairSampler(batch, config.pairs, generator)
    tau_n = config.noise_bias + config.noise_scale * torch.randn(layout.size, generator=generator)
    if config.start == "attribution":
        batches = [sampler.draw() for _ in range(4)]
        tau_n += (1 - config.noise_bias) * attribution_order(model, means_n, batches)
    tau_n = average(tau_n, partner_n).clamp(-1, 1).requires_grad_()
    live_n = torch.ones(layout.size, dtype=torch.bool)
    betas, decay = (0.9, config.beta2), config.weight_decay
    optimizer = torch.optim.AdamW([tau_n], betas=betas, weight_decay=decay, fused=True)
    compacted, k_coef, smoothed = compact(model, live_n, means_n), config.k_coef, None
    restoration = Restoration(config.restore, config.adversarial, layout.size, derive_seed(seed, "restored"))
    give_up = config.give_up or math.inf
    limits = {config.steps // 8: 2 * give_up, config.steps // 4: give_up}
    losses, sizes = [], []
    for step in range(config.steps):
        rising = (step + 1) / max(1.0, config.warmup * config.steps)
        optimizer.param_groups[0]["lr"] = config.learning_rate * min(1.0, rising) * (1 - step / config.steps)
        rows = sampler.draw()
        restored_n = restoration.draw(step)
        net = compacted if restored_n is None else compact(model, live_n | restored_n, means_n, closed)
        open_n = tau_n if restored_n is None else torch.where(restored_n, torch.ones(()), tau_n)
        tap = gate_nodes(layout, open_n, means_n, config.temperature)
        loss = two_way_loss(logit_difference(net, rows, tap), rows.label_b)
        optimizer.zero_grad()
        loss.backward()
        assert tau_n.grad is not None
        restoration.note_gradient(tau_n.grad)
        with torch.no_grad():
            tau_n.grad += k_coef * heaviside_slope(tau_n, config.temperature)
            tau_n.grad = average(tau_n.grad, partner_n) * live_n
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
        if smoothed > limits.get(step + 1, math.inf):
            break
        if (step + 1) % config.drop_every == 0:
            live_n = live_n & (tau_n.detach() >= config.drop_below)
            compacted = compact(model, live_n, means_n, closed)
    return LearnedMasks(tau_n.detach(), tuple(losses), tuple(sizes), k_coef)


def attribution_order(model: Transformer, means_n: Tensor, batches: list[TaskBatch]) -> Tensor:
    """Return initial gates (n), from 1 for the node of largest attribution to 0 for the smallest.

    Attribution is the absolute derivative of the loss with respect to a node's gate, with all gates open. The
    values are linear in the logarithm of the rank, so that gates shut one after another, the least important
    first. Gates that start alike shut together on a task that the model answers with certainty, because its
    loss has almost no gradient. A chain of shut gates then passes no gradient that could reopen it.
    """
    tau_n = torch.ones_like(means_n, requires_grad=True)
    tap = gate_nodes(NodeLayout(model.config), tau_n, means_n, 1.0)
    for rows in batches:
        two_way_loss(logit_difference(model, rows, tap), rows.label_b).backward()
    assert tau_n.grad is not None
    rank_n = tau_n.grad.abs().argsort(descending=True, stable=True).argsort()
    return 1 - (1 + rank_n).log() / torch.tensor(float(len(rank_n))).log()


def heaviside_slope(tau: Tensor, temperature: float) -> Tensor:
    """Return the derivative of sigmoid(tau / temperature), the surrogate for that of the step function."""
    sigmoid = torch.sigmoid(tau / temperature)
    return sigmoid * (1 - sigmoid) / temperature


def gate_nodes(layout: NodeLayout, tau_n: Tensor, values_n: Tensor, temperature: float) -> Tap:
    """Return a tap that passes nodes with tau > 0 and freezes the others at `values_n`.

    Both open and shut gates receive a gradient, with the slope of sigmoid(tau / temperature).
    """
    return on_nodes(
        layout, lambda x_btc, place: _Gate.apply(x_btc, tau_n[place], values_n[place], temperature)
    )


def gate_gradient(grad_btc: Tensor, x_btc: Tensor, open_c: Tensor, value_c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the gates' input (b, t, c) and each channel's sum of grad · (x - value) (c)."""
    if kernel := kernel_for("gate_gradient", grad_btc, x_btc, open_c, value_c):
        passed_btc, slope_c = kernel(grad_btc, x_btc, open_c, value_c)
        return passed_btc, slope_c
    slope_c = (grad_btc.float() * (x_btc.float() - value_c)).sum((0, 1))
    return torch.where(open_c, grad_btc, 0), slope_c


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_btc: Tensor, tau_c: Tensor, value_c: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(x_btc, tau_c, value_c)
        ctx.temperature = temperature
        return freeze(x_btc, tau_c > 0, value_c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_btc, tau_c, value_c = ctx.saved_tensors
        passed_btc, slope_c = gate_gradient(grads[0], x_btc, tau_c > 0, value_c)
        return passed_btc, slope_c * heaviside_slope(tau_c, ctx.temperature), None, None
