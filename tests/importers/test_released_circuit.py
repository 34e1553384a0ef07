"""A circuit of the release's `viz_data.pt` becomes our record: nodes, edges, losses and prompts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from micro import micro_model

from sparsity_lab.circuits.circuit import Node, load_circuit, save_circuit
from sparsity_lab.core.errors import UserError
from sparsity_lab.importers.released_circuit import read_released_circuit


def viz_data(**changes: Any) -> dict[str, Any]:
    """The circuit of the micro model's edges attn_in 0 → v 0 → attn_out 1 and mlp_in 0 → neuron 1."""
    kept = {
        "0.attn.act_in": [0, 1],
        "0.attn.q": [],
        "0.attn.k": [],
        "0.attn.v": [0],
        "0.attn.resid_delta": [1],
        "0.mlp.act_in": [0],
        "0.mlp.post_act": [1],
        "0.mlp.resid_delta": [],
        "final_resid": [0, 1],
    }
    tokens = torch.tensor([[1, 2, 1, 0], [2, 0, 1, 0]])
    activations = {"0.attn.act_in": {0: torch.zeros(2, 4)}}
    return {
        "circuit_data": {name: torch.tensor(indices, dtype=torch.int64) for name, indices in kept.items()},
        "importances": {
            "task_samples": (tokens, activations),
            "loss": torch.tensor(0.2),
            "interv_loss": torch.tensor(0.3),
        },
    } | changes


def test_nodes_edges_losses_and_prompts(tmp_path: Path) -> None:
    torch.save(viz_data(), tmp_path / "viz_data.pt")
    found, prompts = read_released_circuit(tmp_path / "viz_data.pt", micro_model(), "csp_yolo1", "with_as")
    expected = [
        ("attn_in", 0),
        ("attn_in", 1),
        ("attn_v", 0),
        ("attn_out", 1),
        ("mlp_in", 0),
        ("mlp_neuron", 1),
    ]
    assert found.nodes == tuple(Node(layer=0, site=site, channel=channel) for site, channel in expected)
    edges = {
        (e.source.site, e.source.channel, e.target.site, e.target.channel, e.weight) for e in found.edges
    }
    assert edges == {
        ("attn_in", 0, "attn_v", 0, 1.0),
        ("attn_v", 0, "attn_out", 1, 2.0),
        ("mlp_in", 0, "mlp_neuron", 1, 5.0),
    }
    assert (found.task, found.model) == ("with_as", "csp_yolo1")
    assert found.select.raw_loss == pytest.approx(0.15)
    assert found.provenance["unpruned_loss"] == pytest.approx(0.1)
    assert found.provenance["final_resid"] == 2
    assert prompts == ((1, 2, 1), (2, 0, 1))
    save_circuit(found, tmp_path / "circuit.json")
    assert load_circuit(tmp_path / "circuit.json") == found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"circuit_data": {"0.attn.y": torch.tensor([0])}},
            r"circuit_data: '0\.attn\.y': allowed: final_resid",
        ),
        ({"circuit_data": {"0.attn.q": torch.tensor([7])}}, "channel=7: no node of this model"),
        ({"circuit_data": {"3.attn.q": torch.tensor([0])}}, "no node of this model"),
        ({"importances": {}}, "not a circuit of the release"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    torch.save(viz_data(**changes), tmp_path / "viz_data.pt")
    with pytest.raises(UserError, match=told):
        read_released_circuit(tmp_path / "viz_data.pt", micro_model(), "m", "t")


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "viz_data.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"viz_data\.pt: not readable by torch"):
        read_released_circuit(tmp_path / "viz_data.pt", micro_model(), "m", "t")
    torch.save([1], tmp_path / "viz_data.pt")
    with pytest.raises(UserError, match="not a circuit of the release"):
        read_released_circuit(tmp_path / "viz_data.pt", micro_model(), "m", "t")
