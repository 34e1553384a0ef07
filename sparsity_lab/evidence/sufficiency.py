"""Does the circuit suffice? The circuit alone, on held-out pairs (Gao et al. 2025, §2.2)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid

from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, fraction, nats, rule
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.model.sites import HEAD_SITES, Site, Tap
from sparsity_lab.model.taps import Record, ablate, chain
from sparsity_lab.model.transformer import Transformer

ACCURATE = 0.9  # raw accuracy from which a circuit is said to rank the answers


def sufficiency(subject: CircuitUnderTest) -> Check:
    """The circuit alone on held-out pairs, against the whole model."""
    verdict: Verdict
    found, whole = subject.scores(subject.circuit_b), subject.scores(subject.unpruned_b)
    assert found.accuracy is not None  # it is measured
    values = [
        nats("raw loss", found.raw_loss),
        nats("selection loss", found.selection_loss),
        fraction("accuracy", found.accuracy),
        nats("raw loss of the whole model", whole.raw_loss),
        nats("KL from the whole model's answers", two_way_kl(subject.unpruned_b, subject.circuit_b)),
    ]
    similarity = pattern_similarity(subject)
    if similarity is not None:
        values.append(fraction("likeness of attention patterns", similarity))
    meets = found.selection_loss <= subject.limit
    ranks = found.accuracy >= ACCURATE
    if meets and ranks:
        verdict, sentence = "for", "On pairs it has never seen the circuit alone gives the right answer."
    elif meets:
        verdict = "mixed"
        sentence = (
            "The circuit tells the two cases apart, but only with the fitted scale and shift: "
            f"its own logits are right in {found.accuracy:.0%}."
        )
    else:
        verdict, sentence = "against", "On pairs it has never seen the circuit misses its target."
    near = f"a selection loss of at most {subject.limit:.3f} nats (the target + {subject.margin:.3g})"
    conditions = rule(
        f"{near}, and at least {ACCURATE:.0%} right by its own logits", f"{near}, fewer right", "otherwise"
    )
    return Check(
        name="sufficiency", verdict=verdict, values=tuple(values), sentence=sentence, rule=conditions
    )


def two_way_kl(whole_b: Tensor, circuit_b: Tensor) -> float:
    """Mean KL divergence, in nats, of the circuit's two-way answer from the whole model's."""

    def log_p(x_b: Tensor) -> Tensor:
        return torch.stack([logsigmoid(x_b.double()), logsigmoid(-x_b.double())], -1)

    return kl_div(log_p(circuit_b), log_p(whole_b), reduction="batchmean", log_target=True).item()


def pattern_similarity(subject: CircuitUnderTest) -> float | None:
    """How alike the patterns of heads with kept nodes are in the circuit and in the whole model, 0 to 1.

    1 - total variation distance, the sink included, mean over heads, prompts and their tokens; None if the
    circuit has no attention.
    """
    config, layout = subject.model.config, subject.layout
    tokens_bt = subject.test.tokens_bt[:: max(1, len(subject.test.tokens_bt) // 32)]
    last_b = subject.test.last_b[:: max(1, len(subject.test.tokens_bt) // 32)]
    real_bt = torch.arange(tokens_bt.shape[1]) <= last_b[:, None]
    heads = {}
    for layer in range(config.n_layer):
        kept_shk = torch.stack(
            [
                subject.kept_n[layout.slices[site, layer]].unflatten(0, (config.heads, config.d_head))
                for site in HEAD_SITES
            ]
        )
        if kept_shk.any():
            heads[layer] = kept_shk.any(-1).any(0).nonzero().flatten()
    whole = head_patterns(subject.model, tokens_bt, heads)
    alone = head_patterns(subject.alone, tokens_bt, heads, ablate(layout, subject.kept_n, subject.means_n))
    alike = []
    for layer in heads:
        apart_bht = (whole[layer] - alone[layer]).abs().sum(-1)
        apart_bht += (whole[layer].sum(-1) - alone[layer].sum(-1)).abs()  # the sink's share
        alike += (1 - apart_bht.transpose(0, 1)[:, real_bt].mean(-1) / 2).tolist()
    return sum(alike) / len(alike) if alike else None


@torch.no_grad()
def head_patterns(
    model: Transformer, tokens_bt: Tensor, heads: Mapping[int, Tensor], tap: Tap | None = None, rows: int = 32
) -> dict[int, Tensor]:
    """Attention probabilities (b, h, query, key) of some heads by layer, after `tap` if there is one."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in heads}
    for part_bt in tokens_bt.split(rows):
        record = Record({Site.ATTN_PATTERN})
        model(part_bt, chain(tap, record))
        for layer, head_h in heads.items():
            parts[layer].append(record.values[Site.ATTN_PATTERN, layer][:, head_h])
    return {layer: torch.cat(patterns) for layer, patterns in parts.items()}
