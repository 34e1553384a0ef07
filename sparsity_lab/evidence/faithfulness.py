"""Does the circuit suffice, does the model need it, and is all of it needed? (Gao et al. 2025, §2.2, Fig. 32)

Sufficiency keeps the circuit alone; necessity ablates the circuit alone, beside sets of equal size that are
not the circuit; minimality drops its nodes one by one.
"""

import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid

from sparsity_lab.circuits.ablation import ablate
from sparsity_lab.circuits.leave_one_out import differences_without_each
from sparsity_lab.core.base import derive_seed
from sparsity_lab.evidence.circuit_under_test import GUESSING, Subject, activations, count, fraction, nats
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.model.attention import attention_pattern
from sparsity_lab.model.sites import Site

ACCURATE = 0.9  # raw accuracy from which a circuit is said to rank the answers
RANDOM_SETS = 4


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


def necessity(subject: Subject, seed: int) -> Check:
    """The whole model without the circuit, without as many other nodes, and without as active ones."""
    verdict: Verdict
    kept_n, size = subject.kept_n, int(subject.kept_n.sum())
    others = (~kept_n).nonzero().flatten()
    generator = torch.Generator().manual_seed(derive_seed(seed, "necessity"))

    def loss_without(nodes: Tensor) -> float:
        difference_b = subject.kept_difference(torch.ones_like(kept_n).index_fill(0, nodes, False))
        return subject.scores(difference_b).loss

    random = [
        loss_without(others[torch.randperm(len(others), generator=generator)[:size]])
        for _ in range(RANDOM_SETS)
    ]
    without = loss_without(kept_n.nonzero().flatten())
    matched = loss_without(matched_nodes(subject))
    whole, mean_random = subject.scores(subject.unpruned_b).loss, sum(random) / len(random)
    values = (
        nats("loss of the whole model", whole),
        nats("without the circuit", without),
        nats("without random others, mean", mean_random),
        nats("without random others, worst", max(random)),
        nats("without others as active", matched),
    )
    if without <= GUESSING:
        verdict, sentence = "against", "The model still answers without these nodes: it has another way."
    elif max(mean_random, matched) <= GUESSING:
        verdict = "for"
        sentence = "Without these nodes the model no longer answers; without as many others it still does."
    else:
        verdict = "mixed"
        sentence = "The model breaks without these nodes, but also without as many others."
    return Check(name="necessity", verdict=verdict, values=values, sentence=sentence)


def matched_nodes(subject: Subject) -> Tensor:
    """For each kept node another one of its site and layer, outside the circuit, of the nearest activity.

    Activity is the root mean square of a node's distance from its mean on the task's prompts. Indices, each
    once, fewer than the circuit's nodes where a site is kept almost whole.
    """
    spread_n = (subject.task_activations - subject.means_n).square().mean(0).sqrt()
    taken_n = subject.kept_n.clone()
    found = []
    for place in subject.layout.slices.values():
        for node in (subject.kept_n[place].nonzero().flatten() + place.start).tolist():
            distance = (spread_n[place] - spread_n[node]).abs().masked_fill(taken_n[place], float("inf"))
            nearest = int(distance.argmin())
            if distance[nearest] < float("inf"):
                taken_n[place.start + nearest] = True
                found.append(place.start + nearest)
    return torch.tensor(found, dtype=torch.long)


def drop_effects(subject: Subject) -> list[float]:
    """Rise of the test loss (`Subject.refitted_loss`) when each kept node is frozen too, in their order."""
    whole = subject.refitted_loss(subject.circuit_b)
    without_kb = differences_without_each(subject.narrow, subject.kept_n, subject.means_n, subject.test)
    return [subject.refitted_loss(without_b) - whole for without_b in without_kb]


def minimality(subject: Subject, effects: list[float]) -> Check:
    """How many kept nodes could go, one at a time, without missing the target on the held-out pairs."""
    verdict: Verdict
    room = max(subject.circuit.target - subject.refitted_loss(subject.circuit_b), 0.0)
    spare = sum(effect <= room for effect in effects)
    values = (
        count("nodes", len(effects), "nodes"),
        count("nodes that could go, one at a time", spare, "nodes"),
        nats("least effect of a node", min(effects)),
        nats("median effect of a node", sorted(effects)[len(effects) // 2]),
        nats("largest effect of a node", max(effects)),
    )
    if spare == 0:
        verdict, sentence = "for", "Every node is needed: dropping any one misses the target."
    elif spare <= len(effects) / 3:
        verdict, sentence = "mixed", f"{spare} of {len(effects)} nodes could go, one at a time."
    else:
        verdict = "against"
        sentence = f"{spare} of {len(effects)} nodes could go, one at a time: it is not yet minimal."
    return Check(name="minimality", verdict=verdict, values=values, sentence=sentence)
