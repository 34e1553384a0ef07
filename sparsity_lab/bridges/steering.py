"""Steer a dense model by a node of a sparse model, through the bridge (Gao et al. 2025, App. A.4).

1. Candidates are the circuit's nodes on the residual stream: channels that it reads (`attn_in`, `mlp_in`) and
   channels that it writes (`attn_out`, `mlp_out`), as the next sublayer reads them. A node's effect is
   measured by resample ablation on the selection pairs: the rise of the circuit's loss when the node takes
   its value from the pair's other prompt.
2. The whole sparse model runs on both prompts of a pair, and the channel is read after RMSNorm. The
   difference between the prompts at each position, times the decoder's weights for the channel, gives a
   change of the dense residual stream at that boundary. RMSNorm divides by the sparse stream's RMS; the
   change multiplies it back, so that the decoder receives values on the sparse stream's own scale. As a
   share of the dense RMS, this is the paper's ratio.
3. The dense model runs on the test pairs from that boundary, with strength × change added. The control adds
   the same change in a random direction: one random rotation for all prompts and positions.

The choice of the node does not use the dense model's answers. Two more kinds of steering are recorded next to
the best single channel: all of the circuit's channels at each boundary together, and all residual channels at
the single channel's boundary. The last is an upper bound on what the bridge carries.

Shape suffixes: b rows, t time, c channels, d dense width.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sparsity_lab.bridges.bridge import Bridge
from sparsity_lab.bridges.config import SteeringConfig
from sparsity_lab.bridges.steering_record import Candidate, Steering, SteeringResult
from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.evaluator import two_way_loss
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.model.sites import NODES, STREAM_SITES, Site, Tap
from sparsity_lab.model.taps import Record, ablate, at_site, chain, with_residuals
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, rows_of


class NotSteerable(UserError):
    """Steering is impossible under any config: no pairs of equal length, or no node on the stream."""


def name_of(node: Node) -> str:
    """Return the node's name, LAYER.SITE.CHANNEL."""
    return f"{node.layer}.{node.site}.{node.channel}"


def boundary_of(node: Node) -> int:
    """Return the boundary whose residual stream the node reads or has just written to.

    Raises:
        ValueError: the node is not on the residual stream.
    """
    stream = NODES[Site(node.site)].stream
    if stream is None:
        raise ValueError(f"{name_of(node)} is not on the residual stream")
    return 2 * node.layer + stream


def comparable(batch: TaskBatch, limit: int) -> TaskBatch:
    """Return the first `limit` pairs whose prompts have equal length, without excess padding."""
    pairs = len(batch.label_b) // 2
    same_p = (batch.last_b[:pairs] == batch.last_b[pairs:]).nonzero().flatten()[:limit]
    few = rows_of(batch, torch.cat([same_p, same_p + pairs]))
    longest = int(few.last_b.max()) + 1 if len(same_p) else 0
    return replace(few, tokens_bt=few.tokens_bt[:, :longest])


def swapped(x: Tensor) -> Tensor:
    """Replace each row by that of the pair's other prompt."""
    return torch.cat(list(x.chunk(2))[::-1])


@torch.no_grad()
def effects(sparse: Transformer, circuit: Circuit, means_n: Tensor, batch: TaskBatch) -> list[Candidate]:
    """Return the circuit's candidates by descending effect. `batch` must come from `comparable`."""
    layout = NodeLayout(sparse.config)
    kept_n = layout.mask(circuit.nodes)
    frozen = ablate(layout, kept_n, means_n)
    alone = close(sparse, kept_n) if circuit.closed else sparse
    record = Record(STREAM_SITES)

    def loss(tap: Tap) -> float:
        logits_b2 = alone(batch.tokens_bt, tap, position_b=batch.last_b).gather(1, batch.answers_b2)
        return two_way_loss(logits_b2[:, 0] - logits_b2[:, 1], batch.label_b).item()

    whole = loss(chain(frozen, record))
    other = {place: swapped(x_btc) for place, x_btc in record.values.items()}
    found = []
    for node in circuit.nodes:
        site = Site(node.site)
        if site not in STREAM_SITES or node.channel >= sparse.config.d_model:
            continue  # concatenated positions are not part of the residual stream

        value_bt = other[site, node.layer][..., node.channel]

        def exchange(x_btc: Tensor, value_bt: Tensor = value_bt, channel: int = node.channel) -> Tensor:
            x_btc = x_btc.clone()
            x_btc[..., channel] = value_bt
            return x_btc

        exchanged = chain(frozen, at_site(site, node.layer, exchange))
        found.append(Candidate(node=node, effect=loss(exchanged) - whole))
    return sorted(found, key=lambda one: (-one.effect, name_of(one.node)))


@torch.no_grad()
def dense_change(sparse: Transformer, bridge: Bridge, nodes: tuple[Node, ...], batch: TaskBatch) -> Tensor:
    """Decode the nodes' difference between a pair's prompts into a dense residual-stream change (b, t, d).

    All nodes must lie at one boundary.
    """
    (boundary,) = {boundary_of(node) for node in nodes}
    channels = torch.tensor(sorted({node.channel for node in nodes}))
    stream_btd = with_residuals(sparse, batch.tokens_bt)[1][boundary]
    rms_bt1 = stream_btd.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
    read_btc = stream_btd[..., channels] / rms_bt1  # RMSNorm without its weight, which would cancel
    difference_btc = (swapped(read_btc) - read_btc) * rms_bt1
    decoder: Tensor = bridge.decoders[boundary].get_parameter("weight")
    change_btd = difference_btc @ decoder[:, channels].T
    time_t = torch.arange(batch.tokens_bt.shape[1])
    return change_btd * (time_t <= batch.last_b[:, None])[..., None]


@torch.no_grad()
def steer(
    sparse: Transformer,
    dense: Transformer,
    bridge: Bridge,
    nodes: tuple[Node, ...],
    batch: TaskBatch,
    config: SteeringConfig,
) -> Steering:
    """Steer by some nodes of one boundary. `batch` must come from `comparable`."""
    boundary = boundary_of(nodes[0])
    change_btd = dense_change(sparse, bridge, nodes, batch)
    stream_btd = with_residuals(dense, batch.tokens_bt)[1][boundary]
    row_b = torch.arange(len(batch.label_b))
    own_b = batch.answers_b2[row_b, batch.label_b]
    other_b = batch.answers_b2[row_b, 1 - batch.label_b]

    def curves(change_btd: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        probabilities = []
        for strength in config.strengths:
            start = boundary, stream_btd + strength * change_btd
            probabilities.append(
                dense(batch.tokens_bt, position_b=batch.last_b, start=start).double().softmax(-1)
            )
        steered, kept = (
            tuple(p_bv[row_b, answer_b].mean().item() for p_bv in probabilities)
            for answer_b in (other_b, own_b)
        )
        return steered, kept

    generator = torch.Generator().manual_seed(derive_seed(config.seed, "random directions"))
    width = change_btd.shape[-1]
    turns = [
        torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        for _ in range(config.random_directions)
    ]
    probability, kept = curves(change_btd)
    size_b = change_btd.flatten(1).norm(dim=1) / stream_btd.flatten(1).norm(dim=1)
    several = "the whole read" if len(nodes) == sparse.config.d_model else f"{len(nodes)} channels"
    return Steering(
        name=name_of(nodes[0]) if len(nodes) == 1 else f"{several} at boundary {boundary}",
        boundary=boundary,
        nodes=nodes,
        norm=size_b.mean().item(),
        probability=probability,
        kept=kept,
        random=tuple(curves(change_btd @ turn)[0] for turn in turns),
    )


def steering(
    sparse: Transformer,
    dense: Transformer,
    bridge: Bridge,
    circuit: Circuit,
    means_n: Tensor,
    select: TaskBatch,
    test: TaskBatch,
    config: SteeringConfig,
    dense_name: str,
) -> SteeringResult:
    """Choose nodes on the selection pairs and steer on the test pairs.

    Raises:
        NotSteerable: the circuit has no node on the residual stream, or no pair has prompts of equal length.
        UserError: the named node is not among the candidates.
    """
    select, test = comparable(select, config.pairs), comparable(test, config.pairs)
    if not len(select.label_b) or not len(test.label_b):
        raise NotSteerable(f"task {circuit.task}: no pair has prompts of the same number of tokens")
    candidates = effects(sparse, circuit, means_n, select)
    if not candidates:
        raise NotSteerable(f"task {circuit.task}: no node of its circuit is on the residual stream")
    chosen = [c.node for c in candidates if config.node in (None, name_of(c.node))][:1]
    if not chosen:
        known = ", ".join(name_of(c.node) for c in candidates)
        raise UserError(
            f"steering.node: {config.node}: the circuit of {circuit.task} has these to choose from: {known}"
        )
    nodes = [tuple(chosen)]
    for boundary in sorted({boundary_of(c.node) for c in candidates}):
        nodes.append(tuple(c.node for c in candidates if boundary_of(c.node) == boundary))
    nodes.append(tuple(chosen[0].model_copy(update={"channel": c}) for c in range(sparse.config.d_model)))
    return SteeringResult(
        task=circuit.task,
        model=circuit.model,
        dense=dense_name,
        pairs=len(test.label_b) // 2,
        strengths=config.strengths,
        candidates=tuple(candidates),
        steerings=tuple(steer(sparse, dense, bridge, some, test, config) for some in dict.fromkeys(nodes)),
    )
