"""Examples of circuits, checked against the planted model, whose three nodes and their part are known."""

from pathlib import Path

import pytest
import torch
from micro import PLANTED, SMALL, planted_model, question, random_tokens
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_circuit
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tokenizer import END_OF_TEXT
from sparsity_lab.model.sites import Site
from sparsity_lab.tasks.task import Pair, Task
from sparsity_lab.viewer.examples import EXCERPTS, MAX_DROPPED, collect_examples
from sparsity_lab.viewer.examples_record import Examples, digits, load_examples, save_examples
from sparsity_lab.viewer.node_weights import connections, deciding_tokens

PLANTED_NODES = [Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED]
HEAD_CHANNEL = Node(layer=1, site="attn_k", channel=5)  # of head 1
TASK = Task("question", "the first token decides", lambda rng: Pair("a", "b", ("c", "d")))


class Words:
    """A tokenizer for the small models' vocabulary."""

    end_of_text = 10

    def token(self, id: int) -> str:
        return f"<{id}>" if id != self.end_of_text else END_OF_TEXT


MODEL = planted_model()
LAYOUT = NodeLayout(MODEL.config)
TEXT = random_tokens(9, 8, seed=3)
BATCH = question(12, 3)


def circuit(nodes: list[Node], target: float) -> Circuit:
    data = TaskData(*(question(12, seed) for seed in (1, 2, 3)))
    evaluator = CircuitEvaluator(MODEL, means(), data, "calibrated")
    return make_circuit(evaluator, LAYOUT.mask(nodes), "question", "planted", target, {})


def means() -> Tensor:
    return mean_activations(MODEL, [random_tokens(20, 8)])


@pytest.fixture(scope="module")
def examples() -> Examples:
    circuits = [circuit([*PLANTED_NODES, HEAD_CHANNEL], 0.1), circuit(PLANTED_NODES, 0.3)]
    return collect_examples(TASK, MODEL, means(), circuits, BATCH, TEXT, Words())  # type: ignore[arg-type]


def test_the_nodes_of_all_targets_are_there_once_in_order(examples: Examples) -> None:
    assert [found.node for found in examples.nodes] == [*PLANTED_NODES, HEAD_CHANNEL]
    assert [circuit.target for circuit in examples.circuits] == [0.1, 0.3]
    assert [len(circuit.nodes) for circuit in examples.circuits] == [4, 3]


def test_ablating_a_node_of_the_chain_costs_all_and_ablating_an_idle_one_nothing(examples: Examples) -> None:
    *chain, idle = [node.effect for node in examples.circuits[0].nodes]
    assert all(effect is not None and effect > 0.4 for effect in chain)
    assert idle == pytest.approx(0, abs=1e-3)


def test_a_nodes_value_at_the_end_tells_the_answers_apart(examples: Examples) -> None:
    writes = examples.circuits[1].nodes[2]
    assert writes.at_end[0] > 0 > writes.at_end[1]


def test_excerpts_hold_the_extremes_of_the_whole_models_values(examples: Examples) -> None:
    seen = {}

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is not Site.RESID:
            seen[site.value, layer] = x
        return x

    MODEL(TEXT, tap)
    for found in examples.nodes:
        values_bt = seen[found.node.site, found.node.layer][..., found.node.channel]
        highest = values_bt.amax(1).sort(descending=True).values[:EXCERPTS].tolist()
        lowest = values_bt.amin(1).sort().values[:EXCERPTS].tolist()
        assert [max(e.values) for e in found.text_highest] == [digits(v) for v in highest]
        assert [min(e.values) for e in found.text_lowest] == [digits(v) for v in lowest]
        for excerpt in (*found.text_highest, *found.task_lowest):
            assert len(excerpt.values) == len(examples.texts[excerpt.text])


def test_padding_is_in_no_excerpt(examples: Examples) -> None:
    texts = {excerpt.text for found in examples.nodes for excerpt in found.task_highest}
    for index in texts:
        words = [examples.vocabulary[token] for token in examples.texts[index]]
        assert words[-1] == "<5>"
        assert END_OF_TEXT not in words


def test_prompts_come_in_pairs_with_logits_of_model_and_circuit(examples: Examples) -> None:
    assert [prompt.right for prompt in examples.prompts] == [0, 1, 0, 1]
    assert examples.same_answers
    for b, prompt in enumerate(examples.prompts):
        assert prompt.answers == ("<3>", "<4>")
        tokens = [int(examples.vocabulary[token][1:-1]) for token in examples.texts[prompt.text]]
        logits = MODEL(torch.tensor([tokens]))[0, -1, [3, 4]].tolist()
        assert prompt.logits == tuple(digits(value) for value in logits)
        for in_circuit in examples.circuits:
            won = in_circuit.logits[b][0] > in_circuit.logits[b][1]
            assert won == (prompt.right == 0)


def test_patterns_are_those_of_heads_with_a_kept_channel(examples: Examples) -> None:
    assert [(head.layer, head.head) for head in examples.heads] == [(0, 0), (1, 1)]
    assert [(head.layer, head.head) for head in examples.circuits[1].heads] == [(0, 0)]
    for head in examples.heads:
        for pattern, prompt in zip(head.patterns, examples.prompts, strict=True):
            assert [len(row) for row in pattern] == list(range(1, len(examples.texts[prompt.text]) + 1))
            assert all(sum(row) == pytest.approx(1, abs=0.01) for row in pattern)  # this model has no sink


def test_edges_that_leave_the_circuit_are_counted_and_the_strongest_named() -> None:
    kept_n = LAYOUT.mask(PLANTED_NODES)
    inputs, outputs = connections(MODEL, kept_n)[PLANTED_NODES[1]]
    weight_v = MODEL.get_parameter("blocks.0.attention.v.weight")[0]
    assert inputs.total == outputs.total == SMALL.d_model
    assert PLANTED_NODES[0] not in [end.node for end in inputs.outside]
    assert abs(inputs.outside[0].weight) == digits(float(weight_v[1:].abs().max()))


def test_deciding_tokens_are_those_that_tell_pairs_apart() -> None:
    assert deciding_tokens(BATCH, 10) == [1, 2]


def test_s10_examples_read_back_equal_those_written(examples: Examples, tmp_path: Path) -> None:
    save_examples(examples, tmp_path)
    assert load_examples(tmp_path) == examples
    with pytest.raises(UserError, match="no such file"):
        load_examples(tmp_path / "elsewhere")


def test_a_large_circuit_is_not_run_without_each_node() -> None:
    sites = ("mlp_in", "mlp_neuron", "mlp_out", "attn_in", "attn_out")
    nodes = [Node(layer=1, site=site, channel=channel) for site in sites for channel in range(14)]
    large = circuit([*PLANTED_NODES, *nodes], 0.1)
    assert len(large.nodes) > MAX_DROPPED
    found = collect_examples(TASK, MODEL, means(), [large], BATCH, TEXT, Words())  # type: ignore[arg-type]
    assert {node.effect for node in found.circuits[0].nodes} == {None}
