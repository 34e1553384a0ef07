"""The evidence for and against a circuit, as plain JSON, readable without torch.

A check is one question put to a circuit: what was measured, a verdict, and one sentence for people. What
speaks against a circuit stays beside it; a check that could not be made says why.
"""

from pathlib import Path
from typing import Literal

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.files import read_json, write_json

EVIDENCE = "evidence.json"

Verdict = Literal["for", "against", "mixed", "not_measured"]


class Measured(Config):
    """One number: `name` in a few words, its value, and its unit ("nats", "edges", "fraction", ...)."""

    name: str
    value: float
    unit: str


class Check(Config):
    """One question put to a circuit.

    `verdict`: "for" and "against" the circuit being what the model uses, "mixed" where the numbers disagree,
    "not_measured" where the question can't be put (`sentence` says why, and `values` is empty).
    `rule`: the conditions of each verdict, with their numbers. It is empty where nothing was measured, and in
    files of evidence before version 4.
    """

    name: str
    verdict: Verdict
    values: tuple[Measured, ...]
    sentence: str
    rule: str = ""


class NodeEvidence(Config):
    """One kept node: what dropping it costs, and when it is active.

    `drop_effect`: rise of the test loss, in nats, when it is frozen too. `active_on_task` and
    `active_on_text`: share of the positions of the task's prompts, and of pretraining text, at which its
    value lies further from its mean than half of its largest deviation on the task's prompts.
    """

    node: Node
    drop_effect: float
    active_on_task: float
    active_on_text: float


class Evidence(Config):
    """All checks of one circuit: the one of `task` in `model` at `target` nats, in the file `circuit`."""

    task: str
    model: str
    target: float
    circuit: str
    checks: tuple[Check, ...]
    nodes: tuple[NodeEvidence, ...]

    def __repr__(self) -> str:
        lines = [f"Evidence for the circuit of {self.task} at {self.target:g} nats:"]
        for check in self.checks:
            lines.append(f"  {check.name}: {check.verdict}. {check.sentence}")
            lines += [f"    rule: {check.rule}"] if check.rule else []
        return "\n".join(lines)

    __str__ = __repr__


def save_evidence(evidence: Evidence, folder: Path) -> None:
    """Write `evidence` as `evidence.json` in `folder`."""
    write_json(folder / EVIDENCE, evidence)


def load_evidence(path: Path) -> Evidence:
    """Read the evidence from its file, or from the folder that holds it.

    Raises:
        UserError: the file is missing or holds something else.
    """
    path = path / EVIDENCE if path.is_dir() else path
    return validate(Evidence, read_json(path), str(path))
