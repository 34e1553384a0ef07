"""Is all of the circuit needed? Its nodes are dropped one by one."""

from sparsity_lab.circuits.leave_one_out import differences_without_each
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, count, nats, rule
from sparsity_lab.evidence.record import Check, Verdict

SPARE = 1 / 3  # of the nodes; if more could go, a circuit is not minimal


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
    own, target = subject.refitted_loss(subject.circuit_b), subject.circuit.target
    room = max(target - own, 0.0)
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
    elif spare <= SPARE * len(effects):
        verdict, sentence = "mixed", f"{spare} of {len(effects)} nodes could go, one at a time."
    else:
        verdict = "against"
        sentence = f"{spare} of {len(effects)} nodes could go, one at a time: it is not yet minimal."
    which = "the target" if own <= target else "the circuit's own, which is above the target"
    conditions = rule(
        f"without any one node the loss is above {max(own, target):.3f} nats ({which})",
        "at most a third of the nodes could go, one at a time",
        "more could go",
    )
    return Check(name="minimality", verdict=verdict, values=values, sentence=sentence, rule=conditions)
