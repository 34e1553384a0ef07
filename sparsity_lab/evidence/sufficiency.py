"""Does the circuit suffice? The circuit alone, on held-out pairs (Gao et al. 2025, §2.2)."""

import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid

from sparsity_lab.circuits.ablation import ablate
from sparsity_lab.evidence.circuit_under_test import Subject, activations, fraction, nats
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.model.attention import attention_pattern
from sparsity_lab.model.sites import Site

ACCURATE = 0.9  # raw accuracy from which a circuit is said to rank the answers


def sufficiency(subject: Subject) -> Check:
    """The circuit alone on held-out pairs, against the whole model."""
    verdict: Verdict
    found, whole = subject.scores(subject.circuit_b), subject.scores(subject.unpruned_b)
    assert found.accuracy is not None  # it is measured
    values = [
        nats("raw loss", found.loss),
        nats("calibrated loss", found.calibrated_loss),
        fraction("accuracy", found.accuracy),
        nats("raw loss of the whole model", whole.loss),
        nats("KL from the whole model's answers", two_way_kl(subject.unpruned_b, subject.circuit_b)),
    ]
    similarity = pattern_similarity(subject)
    if similarity is not None:
        values.append(fraction("likeness of attention patterns", similarity))
    meets = found.calibrated_loss <= 1.5 * subject.circuit.target
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
    return Check(name="sufficiency", verdict=verdict, values=tuple(values), sentence=sentence)


def two_way_kl(whole_b: Tensor, circuit_b: Tensor) -> float:
    """Mean KL divergence, in nats, of the circuit's two-way answer from the whole model's."""

    def log_p(x_b: Tensor) -> Tensor:
        return torch.stack([logsigmoid(x_b.double()), logsigmoid(-x_b.double())], -1)

    return kl_div(log_p(circuit_b), log_p(whole_b), reduction="batchmean", log_target=True).item()


def pattern_similarity(subject: Subject) -> float | None:
    """How alike the patterns of heads with kept nodes are in the circuit and in the whole model, 0 to 1.

    1 - total variation distance, the sink included, mean over heads, prompts and their tokens; None if the
    circuit has no attention.
    """
    config, layout = subject.model.config, subject.layout
    tokens_bt = subject.test.tokens_bt[:: max(1, len(subject.test.tokens_bt) // 32)]
    last_b = subject.test.last_b[:: max(1, len(subject.test.tokens_bt) // 32)]
    real_bt = torch.arange(tokens_bt.shape[1]) <= last_b[:, None]
    both = [
        activations(subject.model, tokens_bt),
        activations(subject.model, tokens_bt, ablate(layout, subject.kept_n, subject.means_n)),
    ]
    alike = []
    for layer, block in enumerate(subject.model.blocks):
        kept_hk = torch.stack(
            [
                subject.kept_n[layout.slices[site, layer]].unflatten(0, (config.heads, config.d_head))
                for site in (Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V)
            ]
        ).any(0)
        heads = kept_hk.any(-1).nonzero().flatten()
        if not len(heads):
            continue
        patterns = []
        for values_btn in both:
            q_bhtk, k_bhtk = (
                values_btn[..., layout.slices[site, layer]]
                .unflatten(-1, (config.heads, config.d_head))
                .transpose(1, 2)[:, heads]
                for site in (Site.ATTN_Q, Site.ATTN_K)
            )
            sink_h = block.get_parameter("attention.sink")[heads] if config.attention_sink else None
            patterns.append(attention_pattern(q_bhtk, k_bhtk, sink_h))
        apart_bht = (patterns[0] - patterns[1]).abs().sum(-1)
        apart_bht += (patterns[0].sum(-1) - patterns[1].sum(-1)).abs()  # the sink's share
        alike += (1 - apart_bht.transpose(0, 1)[:, real_bt].mean(-1) / 2).tolist()
    return sum(alike) / len(alike) if alike else None
