"""Steering, where the right answer is known: a planted model, bridged to itself by the identity."""

from pathlib import Path

import pytest
import torch
from micro import PLANTED, planted_model, question

from sparsity_lab.bridges.bridge import Bridge, BridgeShape
from sparsity_lab.bridges.config import SteeringConfig
from sparsity_lab.bridges.steering import (
    NotSteerable,
    boundary_of,
    comparable,
    dense_change,
    effects,
    name_of,
    steering,
    swapped,
)
from sparsity_lab.bridges.steering_record import load_steering, save_steering
from sparsity_lab.circuits.circuit import Calibration, Circuit, Node, Scores
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.taps import with_residuals
from sparsity_lab.tasks.batch import TaskBatch

CONFIG = SteeringConfig(tasks=("var_if",), strengths=(0.0, 0.5, 1.0), random_directions=5)
SCORES = Scores(raw_loss=0.1, selection_loss=0.1, accuracy=1.0)
NODES = tuple(Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED)
IDLE = Node(layer=0, site="attn_in", channel=3)


def identity_bridge(width: int = 16) -> Bridge:
    bridge = Bridge(BridgeShape(d_dense=width, d_sparse=width, boundaries=5, k=width))
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter.copy_(torch.eye(width) if parameter.dim() == 2 else torch.zeros(width))
    return bridge


def circuit(*more: Node) -> Circuit:
    return Circuit(
        task="var_if", model="planted", target=0.15, nodes=(*NODES, *more), edges=(), select=SCORES,
        test=SCORES, calibration=Calibration(scale=1.0, shift=0.0), provenance={},
    )  # fmt: skip


def test_the_node_that_decides_steers_and_random_directions_do_not(tmp_path: Path) -> None:
    model, batch = planted_model(), question(32)
    means_n = mean_activations(model, [batch.tokens_bt])
    result = steering(
        model, model, identity_bridge(), circuit(IDLE), means_n, question(16, seed=1), batch, CONFIG, "itself"
    )
    assert [name_of(c.node) for c in result.candidates] == ["0.attn_in.0", "0.attn_out.1", "0.attn_in.3"]
    assert result.candidates[0].effect > 10 * abs(result.candidates[2].effect)
    assert [one.name for one in result.steerings] == [
        "0.attn_in.0", "2 channels at boundary 0", "0.attn_out.1", "the whole read at boundary 0",
    ]  # fmt: skip
    single = result.steerings[0]
    assert (single.boundary, single.nodes) == (0, (NODES[0],))
    whole = result.steerings[-1]
    assert whole.probability[2] == pytest.approx(whole.kept[0], rel=0.05)
    # what decides is channel 0 of the first token; with it exchanged the answers are exchanged
    assert single.probability[0] == pytest.approx(single.kept[2], rel=0.05)
    assert single.probability[2] == pytest.approx(single.kept[0], rel=0.05)
    assert single.probability[0] < single.probability[1] < single.probability[2]
    assert len(single.random) == 5
    assert all(curve[0] == pytest.approx(single.probability[0]) for curve in single.random)
    assert single.times_random > 2
    assert single.times_none > 2
    save_steering(result, tmp_path / "steering.json")
    assert load_steering(tmp_path / "steering.json") == result


def test_all_channels_of_a_read_give_the_stream_of_the_other_prompt() -> None:
    """Up to the residual RMS, which is the prompt's own, the change is the streams' difference."""
    model, batch = planted_model(), question(8)
    nodes = tuple(Node(layer=1, site="mlp_in", channel=channel) for channel in range(16))
    change_btd = dense_change(model, identity_bridge(), nodes, batch)
    stream_btd = with_residuals(model, batch.tokens_bt)[1][3]
    rms_bt1 = stream_btd.pow(2).mean(-1, keepdim=True).sqrt()
    expected_btd = swapped(stream_btd / rms_bt1) * rms_bt1 - stream_btd
    torch.testing.assert_close(change_btd, expected_btd, rtol=1e-4, atol=1e-4)


def test_only_pairs_of_equal_length_are_compared() -> None:
    batch = question(3)
    lengths = torch.tensor([3, 2, 3, 3, 3, 3])
    uneven = TaskBatch(batch.tokens_bt, lengths, batch.answers_b2, batch.label_b)
    assert comparable(uneven, 1).tokens_bt.shape == (2, 4)
    kept = comparable(uneven, 9)
    assert torch.equal(kept.tokens_bt, batch.tokens_bt[[0, 2, 3, 5]])
    assert kept.label_b.tolist() == [0, 0, 1, 1]
    assert torch.equal(swapped(kept.tokens_bt), batch.tokens_bt[[3, 5, 0, 2]])


def test_boundaries_of_nodes() -> None:
    places = [(0, "attn_in"), (0, "mlp_in"), (1, "attn_in"), (0, "mlp_out"), (1, "mlp_in"), (1, "mlp_out")]
    assert [boundary_of(Node(layer=layer, site=site, channel=0)) for layer, site in places] == [
        0,
        1,
        2,
        2,
        3,
        4,
    ]


def test_a_named_node_is_taken_and_a_wrong_one_told() -> None:
    model, batch = planted_model(), question(8)
    means_n = mean_activations(model, [batch.tokens_bt])
    named = CONFIG.model_copy(update={"node": "0.attn_in.3"})
    result = steering(model, model, identity_bridge(), circuit(IDLE), means_n, batch, batch, named, "itself")
    assert result.steerings[0].name == "0.attn_in.3"
    wrong = CONFIG.model_copy(update={"node": "1.mlp_in.2"})
    with pytest.raises(
        UserError, match=r"1.mlp_in.2: the circuit of var_if has .*: 0.attn_in.0, 0.attn_out.1$"
    ):
        steering(model, model, identity_bridge(), circuit(), means_n, batch, batch, wrong, "itself")


def test_a_circuit_that_reads_nothing_cannot_be_steered_by() -> None:
    model, batch = planted_model(), question(8)
    means_n = mean_activations(model, [batch.tokens_bt])
    blind = circuit().model_copy(update={"nodes": NODES[1:2]})
    with pytest.raises(NotSteerable, match="no node of its circuit is on the residual stream"):
        steering(model, model, identity_bridge(), blind, means_n, batch, batch, CONFIG, "itself")


def test_effects_are_of_what_the_circuit_reads_and_writes() -> None:
    model, batch = planted_model(), question(8)
    means_n = mean_activations(model, [batch.tokens_bt])
    assert [c.node for c in effects(model, circuit(), means_n, batch)] == [NODES[0], NODES[2]]
    assert NodeLayout(model.config).size == len(means_n)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"node": "1.attn_v.2"}, "LAYER.SITE.CHANNEL"),
        ({"strengths": [0.5, 1.0]}, "must ascend from 0"),
        ({"strengths": [0.0, 1.0, 0.5]}, "must ascend from 0"),
        ({"random_directions": 0}, "greater than 0"),
    ],
)
def test_wrong_configs_are_told(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        validate(SteeringConfig, CONFIG.model_dump(mode="json") | changes, "steering")
