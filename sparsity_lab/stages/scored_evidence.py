"""The checks of evidence that can be made of a circuit from a file, with what is known of it."""

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.evidence.binarisation import binarisation
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.generalisation import generalisation
from sparsity_lab.evidence.minimality import drop_effects, minimality
from sparsity_lab.evidence.monosemanticity import active_shares, monosemanticity
from sparsity_lab.evidence.necessity import necessity
from sparsity_lab.evidence.record import Check
from sparsity_lab.evidence.robustness import robustness
from sparsity_lab.evidence.sufficiency import sufficiency
from sparsity_lab.stages.evidence import real_pieces
from sparsity_lab.stages.opened import Folder
from sparsity_lab.stages.scored_pairs import Question
from sparsity_lab.tasks.batch import first_pairs
from sparsity_lab.tasks.fixed_pairs import task_of_pairs

NO_TEXT = "it needs pretraining text, which a run's folder has, and an export made with --text"


def checks_of(
    circuit: Circuit, opened: Folder, means_n: Tensor, question: Question, config: EvidenceConfig
) -> tuple[Check, ...]:
    """Make every check that applies. A check that does not apply is listed with the reason."""
    has_text = opened.has_text
    text_bt = torch.cat(list(opened.text))[: config.text_windows] if has_text else torch.zeros(0, 1).long()
    subject = CircuitUnderTest(
        model=opened.model,
        means_n=means_n,
        circuit=circuit,
        train=question.select,
        test=first_pairs(question.test, config.pairs),
        text_bt=text_bt,
    )
    checks = [
        sufficiency(subject),
        necessity(subject, config.seed),
        minimality(subject, drop_effects(subject)),
        robustness(subject, config.seed, config.draws) if has_text else _left_out("robustness", NO_TEXT),
        _left_out("controls", "it repeats the search that found the circuit; a run makes it"),
    ]
    texts = question.texts[: config.pairs]
    if texts and opened.tokenizer is not None:
        task = task_of_pairs(circuit.task, [(pair, None) for pair in texts], same_last_token=False)
        lines = real_pieces(config.seed)
        checks.append(generalisation(subject, task, texts, opened.tokenizer, lines, config.seed))
    else:
        checks.append(_left_out("generalisation", "it needs the pairs as text, and a tokenizer"))
    checks.append(binarisation(subject, config.binarisation_steps, config.seed))
    if has_text:
        checks.append(monosemanticity(subject, active_shares(subject)[1]))
    else:
        checks.append(_left_out("monosemanticity", NO_TEXT))
    return tuple(checks)


def _left_out(name: str, why: str) -> Check:
    return Check(name=name, verdict="not_measured", values=(), sentence=f"Not measured: {why}.")
