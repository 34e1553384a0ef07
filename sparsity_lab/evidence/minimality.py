"""Is all of the circuit needed? Its nodes are dropped one by one."""

from sparsity_lab.circuits.leave_one_out import differences_without_each
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, count, nats
from sparsity_lab.evidence.record import Check, Verdict


def drop_effects(subject: CircuitUnderTest) -> list[float]:
    """Rise of the refitted test loss, in nats, when each kept node is frozen too, in the nodes' order."""
    whole = subject.refitted_loss(subject.circuit_b)
    without_kb = differences_without_each(
        subject.model, subject.kept_n, subject.means_n, subject.test, subject.circuit.closed
    )
    return [subject.refitted_loss(without_b) - whole for without_b in without_kb]


def minimality(subject: CircuitUnderTest, effects: list[float]) -> Check:
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
