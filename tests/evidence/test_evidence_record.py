"""Evidence read back equals the evidence written; anything else is told; no torch is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.evidence.record import (
    EVIDENCE,
    Check,
    Evidence,
    Measured,
    NodeEvidence,
    load_evidence,
    save_evidence,
)

SAMPLE = Evidence(
    task="with_as",
    model="sparse-d64",
    target=0.15,
    circuit="circuit-0.15.json",
    checks=(
        Check(
            name="necessity",
            verdict="for",
            values=(Measured(name="loss without the circuit", value=1 / 3, unit="nats"),),
            sentence="Without these nodes the model no longer answers.",
            rule="for: at least 0.693 nats; mixed: otherwise; against: at most 0.225 nats",
        ),
        Check(name="controls", verdict="not_measured", values=(), sentence="Switched off."),
    ),
    nodes=(
        NodeEvidence(
            node=Node(layer=0, site="attn_in", channel=3),
            drop_effect=0.5,
            active_on_task=0.25,
            active_on_text=0.0,
        ),
    ),
)


def test_round_trip(tmp_path: Path) -> None:
    save_evidence(SAMPLE, tmp_path)
    assert load_evidence(tmp_path) == load_evidence(tmp_path / EVIDENCE) == SAMPLE


def test_evidence_of_the_time_before_rules_is_read(tmp_path: Path) -> None:
    save_evidence(SAMPLE, tmp_path)
    plain = read_json(tmp_path / EVIDENCE)
    for check in plain["checks"]:
        del check["rule"]
    write_json(tmp_path / EVIDENCE, plain)
    assert [check.rule for check in load_evidence(tmp_path).checks] == ["", ""]
    assert "rule" not in repr(load_evidence(tmp_path))


def test_each_verdict_is_shown_with_its_rule() -> None:
    lines = repr(SAMPLE).splitlines()
    assert lines[1] == "  necessity: for. Without these nodes the model no longer answers."
    assert lines[2] == f"    rule: {SAMPLE.checks[0].rule}"
    assert lines[3:] == ["  controls: not_measured. Switched off."]


def test_an_unknown_verdict_is_told_with_those_allowed(tmp_path: Path) -> None:
    save_evidence(SAMPLE, tmp_path)
    plain = read_json(tmp_path / EVIDENCE)
    plain["checks"][0]["verdict"] = "perhaps"
    write_json(tmp_path / EVIDENCE, plain)
    with pytest.raises(UserError, match=r"checks.0.verdict: 'perhaps': .*'against'"):
        load_evidence(tmp_path)


def test_evidence_is_read_without_torch(tmp_path: Path) -> None:
    save_evidence(SAMPLE, tmp_path)
    code = (
        "import sys; from pathlib import Path; from sparsity_lab.evidence.record import load_evidence; "
        "load_evidence(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root)
