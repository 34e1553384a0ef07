"""A circuit read back equals the one written, whatever made it; anything else is told; no torch is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparsity_lab.circuits.circuit import Calibration, Circuit, Edge, Node, Scores, load_circuit, save_circuit
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json

A, B = Node(layer=0, site="attn_in", channel=3), Node(layer=0, site="attn_v", channel=1)
CIRCUIT = Circuit(
    task="with_as",
    model="sparse-d64",
    target=0.15,
    nodes=(A, B),
    edges=(Edge(source=A, target=B, weight=-0.1),),
    calibration=Calibration(scale=1 / 3, shift=-1e-9),
    select=Scores(raw_loss=0.5, selection_loss=0.1, accuracy=1.0),
    test=Scores(raw_loss=0.6, selection_loss=0.2, accuracy=0.9),
    provenance={"method": "masks", "seed": 0, "k_coef": 0.1, "polish": True, "note": None},
)


def test_round_trip(tmp_path: Path) -> None:
    save_circuit(CIRCUIT, tmp_path / "circuits" / "a.json")
    assert load_circuit(tmp_path / "circuits" / "a.json") == CIRCUIT
    assert CIRCUIT.counts == (2, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nodes": None}, "a.json.nodes"),
        ({"colour": 1}, "a.json.colour: unknown key; allowed: target, "),
        ({"excess": 0.1}, "excess: belongs to target_kind relative"),
        ({"target_kind": "relative"}, "excess: belongs to target_kind relative"),
        ({"nodes": [{"layer": 0, "site": "attn_in"}]}, "a.json.nodes.0.channel: missing"),
    ],
)
def test_what_is_no_circuit_is_told(tmp_path: Path, change: dict[str, object], told: str) -> None:
    save_circuit(CIRCUIT, tmp_path / "a.json")
    write_json(tmp_path / "a.json", read_json(tmp_path / "a.json") | change)
    with pytest.raises(UserError) as caught:
        load_circuit(tmp_path / "a.json")
    assert told in str(caught.value)


def test_circuits_are_read_without_torch(tmp_path: Path) -> None:
    save_circuit(CIRCUIT, tmp_path / "a.json")
    code = (
        "import sys; from pathlib import Path; from sparsity_lab.circuits.circuit import load_circuit; "
        "load_circuit(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=True, cwd=root)
