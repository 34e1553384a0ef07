"""What two circuits share."""

from sparsity_lab.circuits.circuit import Calibration, Circuit, Node, Scores
from sparsity_lab.circuits.snapshots import shared_nodes

SCORES = Scores(raw_loss=0.1, selection_loss=0.1, accuracy=1.0)


def circuit(*nodes: tuple[int, str, int]) -> Circuit:
    return Circuit(
        task="t",
        model="m",
        target=0.15,
        nodes=tuple(Node(layer=layer, site=site, channel=channel) for layer, site, channel in nodes),
        edges=(),
        calibration=Calibration(scale=1.0, shift=0.0),
        select=SCORES,
        test=SCORES,
        provenance={},
    )


def test_a_node_is_shared_if_layer_site_and_channel_are_the_same() -> None:
    one = circuit((0, "attn_in", 1), (0, "attn_q", 1), (1, "attn_in", 1))
    assert shared_nodes(one, one) == 3
    assert shared_nodes(one, circuit((1, "attn_in", 1), (0, "attn_q", 2), (0, "attn_in", 1))) == 2
    assert shared_nodes(one, circuit()) == 0
