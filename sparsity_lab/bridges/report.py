"""Evaluate a bridge on validation windows (Gao et al. 2025, App. A.3-A.4).

The report contains
- the loss of each model by itself;
- at each boundary, the reconstruction error in both directions and the losses of both hybrid passes;
- the losses of mixed paths, which training never takes. A mixed path takes each sublayer at random from one
  of the two models, and crosses the bridge wherever the model changes.
"""

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sparsity_lab.bridges.bridge import Bridge, nmse
from sparsity_lab.bridges.objective import Teacher
from sparsity_lab.core.config import Config
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.sites import Start
from sparsity_lab.model.taps import with_residuals
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.objective import cross_entropy

DENSE, SPARSE = "d", "s"


class Agreement(Config):
    """The loss of one model or path, in nats per token, and its KL from the dense model, in nats."""

    loss: float
    kl: float


class Boundary(Config):
    """The NMSE of encoder and decoder at one boundary, and the two passes that cross the bridge there."""

    boundary: int
    nmse_encode: float
    nmse_decode: float
    into_sparse: Agreement
    into_dense: Agreement


class BridgeReport(Config):
    """All results of one bridge.

    `mixed` maps a pattern to its pass. A pattern has one letter (d or s) for each sublayer and one for the
    unembedding.
    """

    dense: Agreement
    sparse: Agreement
    boundaries: tuple[Boundary, ...]
    mixed: dict[str, Agreement]

    @property
    def hybrid_excess(self) -> list[float]:
        """The loss of every hybrid pass minus the dense model's loss."""
        passes = [one for b in self.boundaries for one in (b.into_sparse, b.into_dense)]
        return [one.loss - self.dense.loss for one in passes]

    @property
    def mixed_excess(self) -> list[float]:
        """The loss of every mixed path minus the dense model's loss."""
        return [one.loss - self.dense.loss for one in self.mixed.values()]


def mixed_pass(
    dense: Transformer, sparse: Transformer, bridge: Bridge, tokens_bt: Tensor, pattern: str
) -> Tensor:
    """Return logits (b, t, v) of a path through both models.

    `pattern` names the model that computes after each boundary.
    """
    models = {DENSE: dense, SPARSE: sparse}
    convert = {DENSE: bridge.decode, SPARSE: bridge.encode}
    start: Start | None = None
    switches = [i for i in range(1, len(pattern)) if pattern[i] != pattern[i - 1]]
    for switch in switches:
        streams = with_residuals(models[pattern[switch - 1]], tokens_bt, start=start)[1]
        start = switch, convert[pattern[switch]](switch, streams[switch])
    return models[pattern[-1]](tokens_bt, start=start)


def random_patterns(boundaries: int, count: int, seed: int) -> list[str]:
    """Draw at most `count` distinct patterns that change model at least twice."""
    rng, found = random.Random(derive_seed(seed, "mixed paths")), dict[str, None]()
    for _ in range(64 * count):
        pattern = "".join(rng.choice(DENSE + SPARSE) for _ in range(boundaries))
        if sum(a != b for a, b in pairwise(pattern)) >= 2 and len(found) < count:
            found[pattern] = None
    return sorted(found)


@torch.no_grad()
def report_agreement(
    dense: Transformer, model: Transformer, batches: Iterable[Tensor]
) -> tuple[float, float]:
    """Return the dense model's mean loss and the mean KL(dense, model) over `batches`, in nats per token."""
    total, rows = torch.zeros(2, dtype=torch.float64), 0
    for windows in batches:
        dense_btv, tokens_bt = dense(windows[:, :-1]), windows[:, :-1]
        loss, kl = cross_entropy(dense_btv, windows[:, 1:]), Teacher(dense_btv).kl(model(tokens_bt))
        total += len(windows) * torch.tensor([loss.item(), kl.item()], dtype=torch.float64)
        rows += len(windows)
    loss, kl = (total / rows).tolist()
    return loss, max(0.0, kl)


@torch.no_grad()
def report_bridge(
    dense: Transformer,
    sparse: Transformer,
    bridge: Bridge,
    batches: Iterable[Tensor],
    patterns: Sequence[str],
) -> BridgeReport:
    """Evaluate a bridge; all results are means over `batches` of windows, int64 (b, n_ctx + 1)."""
    every = range(bridge.shape.boundaries)
    total, rows = torch.zeros(2 + 3 * len(every) + len(patterns), 2, dtype=torch.float64), 0
    for windows in batches:
        tokens_bt, targets_bt = windows[:, :-1], windows[:, 1:]
        dense_btv, dense_streams = with_residuals(dense, tokens_bt)
        sparse_btv, sparse_streams = with_residuals(sparse, tokens_bt)
        teacher = Teacher(dense_btv)
        found: list[tuple[Tensor, Tensor]] = []

        def agreement(
            logits_btv: Tensor, teacher: Teacher = teacher, targets_bt: Tensor = targets_bt
        ) -> tuple:
            return cross_entropy(logits_btv, targets_bt), teacher.kl(logits_btv)

        found += [agreement(dense_btv), agreement(sparse_btv)]
        for i in every:
            encoded, decoded = bridge.encode(i, dense_streams[i]), bridge.decode(i, sparse_streams[i])
            found.append((nmse(encoded, sparse_streams[i]), nmse(decoded, dense_streams[i])))
            found.append(agreement(sparse(tokens_bt, start=(i, encoded))))
            found.append(agreement(dense(tokens_bt, start=(i, decoded))))
        found += [agreement(mixed_pass(dense, sparse, bridge, tokens_bt, pattern)) for pattern in patterns]
        total += len(windows) * torch.tensor([[a.item(), b.item()] for a, b in found], dtype=torch.float64)
        rows += len(windows)
    means = (total / rows).tolist()
    pairs = [Agreement(loss=loss, kl=max(0.0, kl)) for loss, kl in means]
    return BridgeReport(
        dense=pairs[0],
        sparse=pairs[1],
        boundaries=tuple(
            Boundary(
                boundary=i,
                nmse_encode=means[2 + 3 * i][0],
                nmse_decode=means[2 + 3 * i][1],
                into_sparse=pairs[3 + 3 * i],
                into_dense=pairs[4 + 3 * i],
            )
            for i in every
        ),
        mixed=dict(zip(patterns, pairs[2 + 3 * len(every) :], strict=True)),
    )
