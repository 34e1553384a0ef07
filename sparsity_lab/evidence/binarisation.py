"""Are two levels of each node enough? (Gao et al. 2025, App. C)

Each node's value x becomes low + (high - low) · sigmoid((x - threshold) / T), with T annealed as
(1 - progress)^5; low, high and threshold are learned on the training pairs; at the end the step is hard.
"""

import torch
from torch import Tensor

from sparsity_lab.circuits.evaluator import two_way_loss
from sparsity_lab.core.hashing import derive_seed
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, activations, nats, rule
from sparsity_lab.evidence.record import Check, Verdict
from sparsity_lab.model.sites import Tap
from sparsity_lab.model.taps import ablate, chain, on_nodes
from sparsity_lab.tasks.batch import PairSampler, logit_difference

PAIRS = 16
LEARNING_RATE = 0.03  # in units of a node's spread


def binarisation(subject: CircuitUnderTest, steps: int, seed: int) -> Check:
    """The task loss that remains when every kept node takes one of two values."""
    verdict: Verdict
    generator = torch.Generator().manual_seed(derive_seed(seed, "binarisation"))
    sampler = PairSampler(subject.train, PAIRS, generator)
    low_n, middle_n, high_n = two_levels(subject, sampler)
    spread_n = (high_n - low_n).clamp(min=1e-6)
    shift_3n = torch.zeros(3, len(spread_n), requires_grad=True)
    optimizer = torch.optim.Adam([shift_3n], lr=LEARNING_RATE)
    calibration = subject.circuit.calibration

    def tap(temperature: float) -> Tap:
        low, middle, high = torch.stack([low_n, middle_n, high_n]) + shift_3n * spread_n

        def binary(x_btc: Tensor, place: slice) -> Tensor:
            if not subject.kept_n[place].any():
                return x_btc
            away_btc = (x_btc - middle[place]) / spread_n[place]
            up_btc = torch.sigmoid(away_btc / temperature) if temperature else (away_btc > 0).float()
            levels_btc = low[place] + (high[place] - low[place]) * up_btc
            return torch.where(subject.kept_n[place], levels_btc, x_btc)

        return chain(frozen, on_nodes(subject.layout, binary))

    frozen = ablate(subject.layout, subject.kept_n, subject.means_n)
    for step in range(steps):
        rows = sampler.draw()
        logit_diff_b = logit_difference(subject.narrow, rows, tap(max((1 - step / steps) ** 5, 1e-3)))
        loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, rows.label_b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found_b = logit_difference(subject.narrow, subject.test, tap(0.0))
    left = subject.scores(found_b).selection_loss
    refitted = subject.refitted_loss(found_b)
    values = (
        nats("selection loss", subject.scores(subject.circuit_b).selection_loss),
        nats("with two values a node", left),
        nats("the same, scale and shift fitted anew", refitted),
    )
    if min(left, refitted) <= subject.limit:
        verdict, sentence = "for", "Two values a node are enough: each says yes or no."
    elif min(left, refitted) <= subject.halfway:
        verdict, sentence = "mixed", "With two values a node the circuit answers, but less surely."
    else:
        verdict, sentence = "against", "Two values a node are not enough: some carry a quantity."
    conditions = rule(
        f"the lower of the last two losses is at most {subject.limit:.3f} nats "
        f"(the target + {subject.margin:.3g})",
        f"at most {subject.halfway:.3f} nats (halfway from the target to chance)",
        "more",
    )
    return Check(name="binarisation", verdict=verdict, values=values, sentence=sentence, rule=conditions)


@torch.no_grad()
def two_levels(subject: CircuitUnderTest, sampler: PairSampler) -> tuple[Tensor, Tensor, Tensor]:
    """Low, threshold and high of every node (n), by two-means over its values in the circuit on the task."""
    rows = sampler.draw()
    tap = ablate(subject.layout, subject.kept_n, subject.means_n)
    values_btn = activations(subject.alone, rows.tokens_bt, tap)
    real_bt = torch.arange(rows.tokens_bt.shape[1]) <= rows.last_b[:, None]
    values_pn = values_btn[real_bt]
    low_n, high_n = values_pn.amin(0), values_pn.amax(0)
    for _ in range(8):
        up_pn = values_pn > (low_n + high_n) / 2
        many_n = up_pn.sum(0)
        high_n = torch.where(many_n > 0, (values_pn * up_pn).sum(0) / many_n.clamp(min=1), high_n)
        few_n = len(values_pn) - many_n
        low_n = torch.where(few_n > 0, (values_pn * ~up_pn).sum(0) / few_n.clamp(min=1), low_n)
    return low_n, (low_n + high_n) / 2, high_n
