"""On how much of the pretraining text are the circuit's nodes active?"""

from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest, count, fraction, rule
from sparsity_lab.evidence.record import Check, Verdict

SELDOM, OFTEN = 0.05, 0.2  # shares of the text on which the typical node is active


def active_shares(subject: CircuitUnderTest) -> tuple[list[float], list[float]]:
    """For each kept node, the share of the task's tokens, and of the text's, that it is active on.

    Active: further from its mean than half of its largest distance on the task's prompts.
    """
    shares = []
    nodes = subject.kept_n.nonzero().flatten()
    means_k = subject.means_n[nodes]
    task_pk = (subject.task_activations[:, nodes] - means_k).abs()
    text_pk = (subject.text_activations[:, nodes] - means_k).abs()
    limit_k = (task_pk.amax(0) / 2).clamp(min=1e-9)
    for values_pk in (task_pk, text_pk):
        shares.append((values_pk > limit_k).double().mean(0).tolist())
    return shares[0], shares[1]


def monosemanticity(subject: CircuitUnderTest, on_text: list[float]) -> Check:
    """On how much of the pretraining text the kept nodes are active, and on how many different tokens."""
    verdict: Verdict
    nodes = subject.kept_n.nonzero().flatten()
    strength_pk = (subject.text_activations[:, nodes] - subject.means_n[nodes]).abs()
    tokens_p = subject.text_bt.flatten()
    top = max(1, min(50, len(tokens_p) // 20))
    kinds = [len(tokens_p[index_p].unique()) for index_p in strength_pk.topk(top, 0).indices.T]
    shares, kinds = sorted(on_text), sorted(kinds)
    typical = shares[len(shares) // 2]
    values = (
        fraction("share of text a node is active on, median", typical),
        fraction("share of text a node is active on, largest", shares[-1]),
        count(f"different tokens among a node's {top} strongest, median", kinds[len(kinds) // 2], "tokens"),
    )
    if typical <= SELDOM:
        verdict, sentence = "for", f"The typical node is silent on {1 - typical:.0%} of pretraining text."
    elif typical <= OFTEN:
        verdict, sentence = "mixed", f"The typical node is active on {typical:.0%} of pretraining text."
    else:
        verdict = "against"
        sentence = f"The typical node is active on {typical:.0%} of pretraining text: it does other work too."
    conditions = rule(
        f"the median node is active on at most {SELDOM:.0%} of the text", f"at most {OFTEN:.0%}", "more"
    )
    return Check(name="monosemanticity", verdict=verdict, values=values, sentence=sentence, rule=conditions)
