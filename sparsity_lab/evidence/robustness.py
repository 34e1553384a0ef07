"""Does the circuit depend on how the rest is frozen?

An optimiser that ablates many nodes at once can find sets whose errors cancel; such a circuit fails as soon
as the rest is frozen elsewhere or some of it comes back. So the nodes outside are frozen at their means, at
zero, and at one position's values of the pretraining text; random subsets of them are restored; and so is a
subset chosen by gradient to do the greatest harm, one for the whole batch. The last is reported, but does not
count for the verdict.
"""

import torch
from torch import Tensor

from sparsity_lab.circuits.evaluator import two_way_loss
from sparsity_lab.circuits.mask_learning import gate_nodes
from sparsity_lab.circuits.restoration import restored_nodes
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, fraction, nats, rule
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.tasks.batch import logit_difference

RESAMPLES = 16
RESTORED = (0.1, 0.3, 0.5)  # shares of the nodes outside
ADVERSARIAL_SHARE = 0.02  # of the nodes outside
ADVERSARIAL_STEPS = 2


def robustness(subject: CircuitUnderTest, seed: int, draws: int) -> Check:
    """The circuit's selection loss, under its own calibration, with the rest treated in other ways."""
    verdict: Verdict
    generator = torch.Generator().manual_seed(derive_seed(seed, "robustness"))

    def loss(kept_n: Tensor, values_n: Tensor | None = None) -> float:
        return subject.scores(subject.kept_difference(kept_n, values_n)).selection_loss

    mean = subject.scores(subject.circuit_b).selection_loss
    zero = loss(subject.kept_n, torch.zeros_like(subject.means_n))
    positions = torch.randperm(len(subject.text_activations), generator=generator)[:RESAMPLES]
    resampled = [loss(subject.kept_n, subject.text_activations[position]) for position in positions]
    restored = {
        share: [
            loss(subject.kept_n | restored_nodes(subject.layout.size, share, generator)) for _ in range(draws)
        ]
        for share in RESTORED
    }
    adversarial = loss(subject.kept_n | adversarial_nodes(subject))
    resample = sum(resampled) / len(resampled)
    values = [
        nats("rest at its means", mean),
        nats("rest at zero", zero),
        nats("rest resampled from text, mean", resample),
        nats("rest resampled from text, worst", max(resampled)),
    ]
    for share, losses in restored.items():
        values.append(nats(f"{share:.0%} of the rest restored, mean", sum(losses) / len(losses)))
        values.append(nats(f"{share:.0%} of the rest restored, worst", max(losses)))
    values.append(nats(f"{ADVERSARIAL_SHARE:.0%} of the rest restored, chosen against it", adversarial))
    accuracy = subject.scores(subject.circuit_b).accuracy
    assert accuracy is not None  # it is measured
    values.append(fraction("accuracy with the rest at its means", accuracy))
    kinds = {
        "frozen at zero": zero,
        "frozen at another text's values": resample,
        "restored at random": max(sum(losses) / len(losses) for losses in restored.values()),
    }
    broken = [kind for kind, value in kinds.items() if value > subject.limit]
    if not broken:
        verdict = "for"
        sentence = "It meets its target however the rest is frozen, and with parts of it restored."
    elif len(broken) < len(kinds):
        verdict, sentence = "mixed", f"It misses its target with the rest {' or '.join(broken)}."
    elif mean > subject.limit:
        verdict, sentence = "against", "It misses its target even with the rest at its means."
    else:
        verdict = "against"
        sentence = "It only meets its target under exact mean ablation, not in any of the other three."
    conditions = rule(
        f"at most {subject.limit:.3f} nats (the target + {subject.margin:.3g}) with the rest frozen at zero, "
        f"frozen at another text's values (mean of {len(resampled)} positions) and restored at random (mean "
        f"of {draws} subsets, at the worst share)",
        "in some of the three",
        "in none",
    )
    return Check(name="robustness", verdict=verdict, values=tuple(values), sentence=sentence, rule=conditions)


def adversarial_nodes(subject: CircuitUnderTest) -> Tensor:
    """The nodes outside whose restoring raises the circuit's loss most, to first order; boolean (n).

    Chosen in a few steps, each by the gradient where the last one led.
    """
    budget = max(1, round(ADVERSARIAL_SHARE * int((~subject.kept_n).sum())))
    restored_n = torch.zeros_like(subject.kept_n)
    calibration, test = subject.circuit.calibration, subject.test
    for step in range(ADVERSARIAL_STEPS):
        open_n = subject.kept_n | restored_n
        tau_n = torch.where(open_n, 1.0, -1.0).requires_grad_()
        tap = gate_nodes(subject.layout, tau_n, subject.means_n, 1.0)
        logit_diff_b = logit_difference(subject.model, test, tap)
        loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, test.label_b)
        (slope_n,) = torch.autograd.grad(loss, tau_n)
        share = budget * (step + 1) // ADVERSARIAL_STEPS - int(restored_n.sum())
        worst = slope_n.masked_fill(open_n, float("-inf")).topk(share)
        restored_n[worst.indices[worst.values > 0]] = True
    return restored_n
