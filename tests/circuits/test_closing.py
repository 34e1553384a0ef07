"""A closed circuit computes from what is drawn: its nodes, the edges between them, and constants."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from micro import (
    MICRO,
    evaluator_of,
    micro_model,
    planted_model,
    quick_masks,
    quick_pruning,
    random_tokens,
    small_model,
)
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.edges import edge_matrices
from sparsity_lab.circuits.leave_one_out import differences_without_each
from sparsity_lab.circuits.mask_learning import learn_masks
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import find_circuits, make_circuit
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import logit_difference

SPARSE: dict[str, Any] = {"activation_fraction": 0.25}


def random_circuit(model: Transformer, seed: int = 0, share: float = 0.4) -> tuple[Tensor, Tensor]:
    """Kept nodes and means of a random circuit (n)."""
    generator = torch.Generator().manual_seed(seed)
    kept_n = torch.rand(NodeLayout(model.config).size, generator=generator) < share
    return kept_n, mean_activations(model, [random_tokens(9, 9, seed=1)])


@torch.no_grad()
def by_brute_force(model: Transformer, kept_n: Tensor) -> Transformer:
    """A deep copy with every weight into a dropped node set to zero, one matrix after another."""
    config, vocabulary = model.config, model.vocab_size
    copied = Transformer(config, vocabulary)
    copied.load_state_dict(model.state_dict())
    slices = NodeLayout(config).slices
    for layer, _, target, weight_oi in edge_matrices(copied):
        weight_oi[~kept_n[slices[target, layer]]] = 0
    return copied.eval().requires_grad_(False)


def test_by_hand_a_dropped_node_no_longer_displaces_a_kept_one() -> None:
    """One of two channels survives at each site of the micro model. Neuron 1 always wins over neuron 0.

    Neuron 0 has gelu(read₁) and neuron 1 has gelu(5 · read₀); reads are (1, 0) or (0, ±1) after AbsTopK.
    A third weight lets neuron 1 read channel 1 too, with factor 9, and win. Without neuron 1, the closed
    circuit passes neuron 0 = gelu(1) and writes 3 · gelu(1); the open one still loses it to the dropped node.
    """
    config = MICRO.model_copy(update={"activation_fraction": 0.5, "activation_sites": ("mlp_neuron",)})
    model = Transformer(config, 3, torch.zeros(3, 3))
    model.load_state_dict(micro_model().state_dict())
    model = model.eval().requires_grad_(False)
    block: Any = model.blocks[0]
    block.mlp.up.weight[1] = torch.tensor([0.0, 9.0])
    layout = NodeLayout(config)
    kept_n = torch.ones(layout.size, dtype=torch.bool)
    dropped = Node(layer=0, site="mlp_neuron", channel=1)
    kept_n[layout.mask([dropped])] = False
    tokens_bt, means_n = torch.tensor([[0]]), torch.zeros(layout.size)
    # embedding (1, 1), attention adds 2 to channel 1: (1, 3); RMS = sqrt(5)
    read = 3 / 5**0.5
    neuron = read * (1 + torch.erf(torch.tensor(read / 2**0.5)).item()) / 2
    norm = (((1 + 3 * neuron) ** 2 + 9) / 2) ** 0.5
    bigram = 1.0  # token 0's, to token 1
    tap = ablate(layout, kept_n, means_n)
    closed = close(model, kept_n)(tokens_bt, tap)[0, 0, :2]
    assert closed.tolist() == pytest.approx([(1 + 3 * neuron) / norm, 3 / norm + bigram], abs=1e-5)
    opened = model(tokens_bt, tap)[0, 0, :2]
    assert opened.tolist() == pytest.approx([1 / 5**0.5, read + bigram], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_closing_sets_every_weight_into_a_dropped_node_to_zero(seed: int) -> None:
    model, tokens_bt = small_model(**SPARSE), random_tokens(4, 9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept_n, means_n = random_circuit(model, seed)
    tap = ablate(NodeLayout(model.config), kept_n, means_n)
    expected = by_brute_force(model, kept_n)(tokens_bt, tap)
    assert torch.equal(close(model, kept_n)(tokens_bt, tap), expected)
    compacted = compact(model, kept_n, means_n, closed=True)
    torch.testing.assert_close(compacted(tokens_bt, tap), expected, rtol=1e-4, atol=1e-4)
    assert (model(tokens_bt, tap) - expected).abs().max() > 0.1
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_without_abs_top_k_closing_changes_nothing() -> None:
    model = small_model(activation_fraction=1.0)
    kept_n, means_n = random_circuit(model)
    tap, tokens_bt = ablate(NodeLayout(model.config), kept_n, means_n), random_tokens(4, 9)
    assert close(model, kept_n) is model
    torch.testing.assert_close(by_brute_force(model, kept_n)(tokens_bt, tap), model(tokens_bt, tap))


@pytest.mark.parametrize("closed", [False, True])
def test_the_edges_only_loss_is_recorded_and_is_the_loss_of_a_closed_circuit(closed: bool) -> None:
    evaluator = evaluator_of(small_model(**SPARSE), quick_pruning(closed=closed))
    kept_n, _ = random_circuit(evaluator.model)
    circuit = make_circuit(evaluator, kept_n, "question", "small", 0.15, {})
    alone = replace(evaluator, model=by_brute_force(evaluator.model, kept_n), closed=False)
    _, _, test = alone.scores(kept_n)
    assert circuit.edges_only is not None
    assert circuit.edges_only.model_dump() == pytest.approx(test.model_dump(), abs=1e-5)
    assert circuit.closed is closed
    same = abs(circuit.test.raw_loss - test.raw_loss) < 1e-5
    assert same is closed


@pytest.mark.parametrize("closed", [False, True])
def test_the_search_meets_its_target_as_a_closed_circuit(closed: bool) -> None:
    model = planted_model()
    config = model.config.model_copy(update=SPARSE)
    competing = Transformer(config, model.vocab_size)
    competing.load_state_dict(model.state_dict())
    pruning = quick_pruning(closed=closed, targets=[0.15])
    evaluator = evaluator_of(competing.eval().requires_grad_(False), pruning)
    (circuit,) = find_circuits(evaluator, "question", "planted", quick_masks(), pruning).circuits
    kept_n = NodeLayout(config).mask(circuit.nodes)
    alone = replace(evaluator, model=by_brute_force(competing, kept_n), closed=False)
    loss = alone.select_loss(kept_n)
    if closed:
        assert loss == pytest.approx(circuit.select.selection_loss, abs=1e-5)
        assert loss <= 0.15
    else:
        assert circuit.select.selection_loss <= 0.15


def test_masks_learn_without_the_weights_into_dropped_nodes() -> None:
    evaluator = evaluator_of(small_model(**SPARSE), quick_pruning())
    finder = quick_masks().model_copy(update={"drop_below": 0.5, "drop_every": 5, "steps": 12})
    arguments = (evaluator.model, evaluator.means_n, evaluator.data.train, finder, 0)
    opened, closed = (learn_masks(*arguments, closed) for closed in (False, True))
    assert opened.losses[:5] == closed.losses[:5]
    assert opened.losses[5] != closed.losses[5]


def test_leaving_a_node_out_of_a_closed_circuit_closes_it_too() -> None:
    evaluator = evaluator_of(small_model(**SPARSE), quick_pruning())
    model, means_n, batch = evaluator.model, evaluator.means_n, evaluator.data.test
    kept_n, _ = random_circuit(model, share=0.2)
    found_kb = differences_without_each(model, kept_n, means_n, batch, closed=True)
    for node, found_b in zip(kept_n.nonzero().flatten(), found_kb, strict=True):
        fewer_n = kept_n.index_fill(0, node[None], False)
        tap = ablate(NodeLayout(model.config), fewer_n, means_n)
        expected_b = logit_difference(by_brute_force(model, fewer_n), batch, tap)
        torch.testing.assert_close(found_b, expected_b, rtol=1e-4, atol=1e-4)
