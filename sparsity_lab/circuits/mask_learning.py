"""Which nodes a task needs, learned as one gate per node (Gao et al. 2025, §2.2, App. A.5).

1. every node has a parameter tau in [-1, 1]; where tau > 0 its gate is open, else it is frozen at its mean;
2. minimise two-way cross-entropy + k · (number of open gates), by AdamW with clipped gradients. A gate passes
   its gradient as if it were sigmoid(tau / temperature), so the penalty's gradient is k · that slope;
3. the paper fixes k and searches it per model and task. Here k is, by default, a multiplier that rises while
   the loss is below the aim (`finder.target`) and falls while above, so that each task finds its own;
4. gates that have shut firmly are dropped for good, and the compacted model computes without them, faster
   and to the same numbers;
5. hardened (`restore`): in every other step some of the other nodes are restored, so that a set of nodes
   that only works while all the rest is frozen at its means does not last.

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
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.dispatch import kernel_for
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.taps import freeze, on_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import PairSampler, TaskBatch, logit_difference


@dataclass(frozen=True)
class LearnedMasks:
    """tau of every node (n); for each step, its loss and the open gates after it; the last k."""

    tau_n: Tensor
    losses: tuple[float, ...]
    sizes: tuple[int, ...]
    k_coef: float


def learn_masks(
    model: Transformer, means_n: Tensor, batch: TaskBatch, config: MaskLearningConfig, seed: int
) -> LearnedMasks:
    """Learn the gates of one task on the training pairs in `batch`.

    `model`'s weights must not require gradients; `means_n` holds the values that shut nodes are frozen at. A
    training that was given up has fewer losses than `config.steps`.
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
        net = compacted if restored_n is None else compact(model, live_n | restored_n, means_n)
        open_n = tau_n if restored_n is None else torch.where(restored_n, torch.ones(()), tau_n)
        tap = gate_nodes(layout, open_n, means_n, config.temperature)
        loss = two_way_loss(logit_difference(net, rows, tap), rows.label_b)
        optimizer.zero_grad()
        loss.backward()
        assert tau_n.grad is not None
        restoration.note_gradient(tau_n.grad)
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
        if smoothed > limits.get(step + 1, math.inf):
            break
        if (step + 1) % config.drop_every == 0:
            live_n = live_n & (tau_n.detach() >= config.drop_below)
            compacted = compact(model, live_n, means_n)
    return LearnedMasks(tau_n.detach(), tuple(losses), tuple(sizes), k_coef)


def attribution_order(model: Transformer, means_n: Tensor, batches: list[TaskBatch]) -> Tensor:
    """From 1 for the node of largest gradient attribution down to 0, by the logarithm of its rank (n).

    Attribution is here the size of the loss's slope in a node's gate, all gates open. Gates that start so
    shut one after another, the least important first. Gates that start alike shut together on a task that the
    model answers with certainty, since its loss hardly has a gradient; and a chain of shut gates passes no
    gradient that could open it again.
    """
    tau_n = torch.ones_like(means_n, requires_grad=True)
    tap = gate_nodes(NodeLayout(model.config), tau_n, means_n, 1.0)
    for rows in batches:
        two_way_loss(logit_difference(model, rows, tap), rows.label_b).backward()
    assert tau_n.grad is not None
    rank_n = tau_n.grad.abs().argsort(descending=True, stable=True).argsort()
    return 1 - (1 + rank_n).log() / torch.tensor(float(len(rank_n))).log()


def heaviside_slope(tau: Tensor, temperature: float) -> Tensor:
    """Derivative of sigmoid(tau / temperature), which stands in for that of the step."""
    sigmoid = torch.sigmoid(tau / temperature)
    return sigmoid * (1 - sigmoid) / temperature


def gate_nodes(layout: NodeLayout, tau_n: Tensor, values_n: Tensor, temperature: float) -> Tap:
    """A tap that passes nodes with tau > 0 and freezes the others at `values_n`.

    The gradient reaches the tau of open and of shut gates, by the slope of sigmoid(tau / temperature).
    """
    return on_nodes(
        layout, lambda x_btc, place: _Gate.apply(x_btc, tau_n[place], values_n[place], temperature)
    )


def gate_gradient(grad_btc: Tensor, x_btc: Tensor, open_c: Tensor, value_c: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the gates' input (b, t, c), and the sum of grad · (x - value) in each channel (c)."""
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
