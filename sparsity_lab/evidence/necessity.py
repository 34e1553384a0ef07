"""Does the model need the circuit? (Gao et al. 2025, §2.2, Fig. 32)

The circuit alone is ablated, beside sets of equal size that are not the circuit.
"""

import torch
from torch import Tensor

from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.evidence.circuit_under_test import CHANCE_LOSS, CircuitUnderTest, count, nats, rule
from sparsity_lab.evidence.record import Check, Verdict

RANDOM_SETS = 16


def necessity(subject: CircuitUnderTest, seed: int) -> Check:
    """The whole model without the circuit, without as many other nodes, and without as active ones."""
    verdict: Verdict
    kept_n, size = subject.kept_n, int(subject.kept_n.sum())
    others = (~kept_n).nonzero().flatten()
    generator = torch.Generator().manual_seed(derive_seed(seed, "necessity"))

    def loss_without(nodes: Tensor) -> float:
        rest_n = torch.ones_like(kept_n).index_fill(0, nodes, False)
        logit_diff_b = subject.kept_difference(rest_n, closed=False)  # the whole model, not a circuit
        return subject.scores(logit_diff_b).raw_loss

    random = [
        loss_without(others[torch.randperm(len(others), generator=generator)[:size]])
        for _ in range(RANDOM_SETS)
    ]
    without = loss_without(kept_n.nonzero().flatten())
    matched_nodes_k = matched_nodes(subject)
    matched = loss_without(matched_nodes_k)
    whole, mean_random = subject.scores(subject.unpruned_b).raw_loss, sum(random) / len(random)
    values = (
        nats("loss of the whole model", whole),
        nats("without the circuit", without),
        nats("without random others, mean", mean_random),
        nats("without random others, worst", max(random)),
        nats("without others as active", matched),
        count("others as active", len(matched_nodes_k), "nodes"),
    )
    others_lost, limit = max(mean_random, matched), subject.limit_beside(whole)
    if without <= limit:
        verdict, sentence = "against", "The model still answers without these nodes: it has another way."
    elif without < CHANCE_LOSS and without <= others_lost:
        verdict, sentence = "against", "As many others cost the model as much as these nodes."
    elif without < CHANCE_LOSS:
        verdict, sentence = "mixed", "Without these nodes the model is worse, but still better than chance."
    elif len(others) < size:
        verdict, sentence = "mixed", "The model has fewer other nodes than the circuit to compare with."
    elif others_lost > limit:
        verdict = "mixed"
        sentence = (
            "Without these nodes the model no longer answers, but as many others cost it something too."
        )
    else:
        verdict = "for"
        sentence = "Without these nodes the model no longer answers; without as many others it still does."
    which = "the target" if whole <= subject.circuit.target else "the whole model's loss"
    conditions = rule(
        f"at least {CHANCE_LOSS:.3f} nats (chance) without the circuit, and at most {limit:.3f} nats "
        f"({which} + {subject.margin:.3g}) without as many others, as the mean of {RANDOM_SETS} random sets "
        "and for those as active",
        "otherwise",
        f"at most {limit:.3f} nats without the circuit, or below chance and no more than without as many "
        "others",
    )
    return Check(name="necessity", verdict=verdict, values=values, sentence=sentence, rule=conditions)


def matched_nodes(subject: CircuitUnderTest) -> Tensor:
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
