"""Train a sparse model and a bridge to a frozen dense model (Gao et al. 2025, §2.3, App. A.3-A.4).

Both models have the same depth. Let h be the residual streams at the boundaries i, f the encoders and g the
decoders. A step:
1. The dense model runs once and gives h^d and its predictions y^d. The sparse model runs once and gives h^s.
2. From each boundary i, the rest of the sparse model runs on f_i(h^d_i), and the rest of the dense model runs
   on g_i(h^s_i).
3. The loss is a weighted sum of four terms: the sparse model's own cross-entropy,
   Σ NMSE(f_i(h^d_i), h^s_i) + NMSE(g_i(h^s_i), h^d_i), Σ KL(y^d, sparse from i), Σ KL(y^d, dense from i).
4. Gradient scaling, AdamW and projection work as for any sparse model. The bridge is a separate parameter
   group: its gradient is scaled separately, and its learning rate does not depend on the kept fraction.
"""

import random
from typing import Any

import torch
from torch import Tensor, nn

from sparsity_lab.bridges.bridge import Bridge, BridgeShape, nmse
from sparsity_lab.bridges.config import BridgeConfig
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.taps import with_residuals
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.objective import ParameterGroup, cross_entropy


def make_bridge(dense: Transformer, sparse: Transformer, config: BridgeConfig) -> Bridge:
    """Build an untrained bridge between two models.

    Raises:
        UserError: the models differ in depth or vocabulary, or have fewer boundaries than `config` draws.
    """
    depths = dense.config.n_layer, sparse.config.n_layer
    if depths[0] != depths[1]:
        raise UserError(f"model.n_layer: {depths[1]}: the dense model to bridge to has {depths[0]}")
    if dense.vocab_size != sparse.vocab_size:
        raise UserError(
            f"bridge: the dense model has a vocabulary of {dense.vocab_size}, this one of {sparse.vocab_size}"
        )
    boundaries, d_sparse = 2 * depths[0] + 1, sparse.config.d_model
    if config.boundaries is not None and config.boundaries > boundaries:
        raise UserError(f"bridge.boundaries: {config.boundaries}: there are {boundaries}")
    k = max(1, round(config.activation_fraction * d_sparse))
    return Bridge(BridgeShape(d_dense=dense.config.d_model, d_sparse=d_sparse, boundaries=boundaries, k=k))


class BridgeObjective(nn.Module):
    """The loss that trains a sparse model and a `bridge` to the frozen `dense` model.

    `seed` determines the boundaries drawn in each step.
    """

    def __init__(self, dense: Transformer, bridge: Bridge, config: BridgeConfig, seed: int) -> None:
        super().__init__()
        self.dense = dense.train().requires_grad_(False)  # silences Lightning; no dropout
        self.bridge, self.config, self.seed = bridge, config, seed

    def groups(self) -> list[ParameterGroup]:
        config = self.config
        bridge = list(self.bridge.parameters())
        return [
            ParameterGroup(
                bridge, config.learning_rate, config.weight_decay, divided_by_root_kept_fraction=False
            )
        ]

    def drawn(self, step: int) -> list[int]:
        """Return the boundaries that one step sums over."""
        every = range(self.bridge.shape.boundaries)
        if self.config.boundaries is None:
            return list(every)
        rng = random.Random(derive_seed(self.seed, "boundaries", step))
        return sorted(rng.sample(every, self.config.boundaries))

    def forward(
        self, model: Transformer, windows: Tensor, step: int, tap: Tap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tokens_bt, weights, drawn = windows[:, :-1], self.config.weights, self.drawn(step)
        with torch.no_grad():
            logits_btv, dense = with_residuals(self.dense, tokens_bt)
            teacher = Teacher(logits_btv)
        logits_btv, sparse = with_residuals(model, tokens_bt, tap)
        own = cross_entropy(logits_btv, windows[:, 1:])
        sums = torch.zeros(4, device=own.device)
        for i in drawn:
            encoded, decoded = self.bridge.encode(i, dense[i]), self.bridge.decode(i, sparse[i])
            into_sparse = model(tokens_bt, start=(i, encoded))
            into_dense = self.dense(tokens_bt, start=(i, decoded))
            sums = sums + torch.stack(
                [
                    nmse(encoded, sparse[i]),
                    nmse(decoded, dense[i]),
                    teacher.kl(into_sparse),
                    teacher.kl(into_dense),
                ]
            )
        sums = sums * (self.bridge.shape.boundaries / len(drawn))
        loss = (
            weights.cross_entropy * own
            + weights.nmse * (sums[0] + sums[1])
            + weights.kl_into_sparse * sums[2]
            + weights.kl_into_dense * sums[3]
        )
        logged = dict(zip([metric.name for metric in metrics.BRIDGING], sums.detach(), strict=True))
        return loss, {metrics.TRAIN_LOSS.name: own.detach()} | logged


class Teacher:
    """The dense model's predictions y^d, detached, for comparison with other logits."""

    def __init__(self, logits_btv: Tensor) -> None:
        log_nv = logits_btv.detach().flatten(0, -2).float().log_softmax(-1)
        self.probability_nv = log_nv.exp()
        self.entropy = -torch.dot(self.probability_nv.flatten(), log_nv.flatten()) / len(log_nv)

    def kl(self, logits_btv: Tensor) -> Tensor:
        """Return KL(teacher, softmax(logits)) in nats, averaged over positions."""
        return _CrossEntropy.apply(self.probability_nv, logits_btv.flatten(0, -2).float()) - self.entropy


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy that saves only its gradient, (softmax(logits) - teacher) / n, for the backward pass."""

    @staticmethod
    def forward(ctx: Any, teacher_nv: Tensor, logits_nv: Tensor) -> Tensor:
        log_nv = logits_nv.log_softmax(-1)
        loss = -torch.dot(teacher_nv.flatten(), log_nv.flatten()) / len(log_nv)
        ctx.save_for_backward(log_nv.exp_().sub_(teacher_nv).div_(len(log_nv)))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (gradient_nv,) = ctx.saved_tensors
        return None, gradient_nv * grads[0]
