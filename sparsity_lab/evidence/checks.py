"""The evidence for and against a circuit: all checks of this room, put together.

Each check is a file: sufficiency, necessity, minimality, robustness, controls, generalisation, binarisation,
monosemanticity. Every check is made on test pairs, which had no part in finding the circuit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.finders import FinderConfig
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.evidence.binarisation import binarisation
from sparsity_lab.evidence.circuit_under_test import CircuitUnderTest
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.evidence.controls import controls
from sparsity_lab.evidence.generalisation import generalisation
from sparsity_lab.evidence.minimality import drop_effects, minimality
from sparsity_lab.evidence.monosemanticity import active_shares, monosemanticity
from sparsity_lab.evidence.necessity import necessity
from sparsity_lab.evidence.record import Check, Evidence, NodeEvidence
from sparsity_lab.evidence.robustness import robustness
from sparsity_lab.evidence.sufficiency import sufficiency
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import first_pairs
from sparsity_lab.tasks.task import Pair, Task


@dataclass(frozen=True)
class SharedInputs:
    """What is not the circuit's own: the pretraining text, real source, and the model of shuffled weights."""

    text_bt: Tensor
    real_lines: Sequence[str]
    tokenizer: Tokenizer
    shuffled: tuple[Transformer, Tensor] | None


def check_circuit(
    circuit: Circuit,
    circuit_file: str,
    model: Transformer,
    means_n: Tensor,
    task: Task,
    data: TaskData,
    test_pairs: Sequence[Pair],
    shared_inputs: SharedInputs,
    finder: FinderConfig,
    pruning: PruningConfig,
    config: EvidenceConfig,
) -> Evidence:
    """Make every check of `circuit`. `test_pairs` are those that `data.test` encodes."""
    subject = CircuitUnderTest(
        model=model,
        means_n=means_n,
        circuit=circuit,
        train=data.train,
        test=first_pairs(data.test, config.pairs),
        text_bt=shared_inputs.text_bt,
    )
    effects = drop_effects(subject)
    on_task, on_text = active_shares(subject)
    checks = [
        sufficiency(subject),
        necessity(subject, config.seed),
        minimality(subject, effects),
        robustness(subject, config.seed, config.draws),
    ]
    if shared_inputs.shuffled is None:
        checks.append(
            Check(name="controls", verdict="not_measured", values=(), sentence="evidence.controls is off.")
        )
    else:
        checks.append(controls(subject, shared_inputs.shuffled, data, finder, pruning, config.seed))
    checks += [
        generalisation(
            subject,
            task,
            test_pairs[: config.pairs],
            shared_inputs.tokenizer,
            shared_inputs.real_lines,
            config.seed,
        ),
        binarisation(subject, config.binarisation_steps, config.seed),
        monosemanticity(subject, on_text),
    ]
    nodes = tuple(
        NodeEvidence(node=node, drop_effect=effect, active_on_task=task_share, active_on_text=text_share)
        for node, effect, task_share, text_share in zip(circuit.nodes, effects, on_task, on_text, strict=True)
    )
    return Evidence(
        task=circuit.task,
        model=circuit.model,
        target=circuit.target,
        circuit=circuit_file,
        checks=tuple(checks),
        nodes=nodes,
    )
