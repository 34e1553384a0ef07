"""The circuit of set_or_string_fixedvarname in docs/ binds a value to a name, in two hops through attention.

Every prompt makes one set and one empty string, under two names of which one is `current`, and ends in
`current`. The whole model is changed at the token ` set`, or at the names before it and before the string.
docs/circuit.md has the same numbers.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.taps import Record, ablate, at_site
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs
from sparsity_lab.tasks.python import TASKS
from tests.model_in_docs import load_model_and_means, load_nodes, load_pairs

TASK = TASKS["set_or_string_fixedvarname"]
FOLDER = Path(__file__).parents[1] / "docs" / TASK.name
NAME, BINDING = 1, 13  # the heads of layer 0 and of layer 1
KEYS, VALUE = (4, 12), 14  # channels of the second one


class Example(NamedTuple):
    model: Transformer
    means_n: Tensor
    nodes: list[Node]
    batch: TaskBatch
    set_b: Tensor  # position of ` set`
    string_b: Tensor  # position of the empty string
    own_b: Tensor  # whether the set is that of `current`

    def channel(self, head: int, channel: int) -> int:
        return head * self.model.config.d_head + channel

    def adds(self, tap: Tap | None = None) -> tuple[float, float]:
        """How often `.add` is preferred to ` +=`: where the set is that of `current`, and where it is not."""
        with torch.no_grad():
            logits_b2 = self.model(self.batch.tokens_bt, tap, position_b=self.batch.last_b).gather(
                1, self.batch.answers_b2
            )
        added_b = (logits_b2[:, 0] > logits_b2[:, 1]).float()
        return float(added_b[self.own_b].mean()), float(added_b[~self.own_b].mean())

    def seen(self, site: Site, layer: int) -> Tensor:
        """The values of a site in all prompts."""
        record = Record({site})
        with torch.no_grad():
            self.model(self.batch.tokens_bt, record)
        return record.values[site, layer]


@pytest.fixture(scope="module")
def example() -> Example:
    model, means_n = load_model_and_means(FOLDER)
    tokenizer = load_tokenizer(FOLDER / "tokenizer.json")
    nodes, batch = load_nodes(FOLDER), encode_pairs(TASK, load_pairs(FOLDER), tokenizer)
    sets, strings, own = [], [], []
    for tokens_t, last in zip(batch.tokens_bt.tolist(), batch.last_b.tolist(), strict=True):
        words = [tokenizer.decode([token]) for token in tokens_t[: last + 1]]
        after = [index + 1 for index, word in enumerate(words) if word == " ="]
        (of_set,) = (index for index in after if words[index] == " set")
        (of_string,) = (index for index in after if words[index].strip() in ('""', "''"))
        sets.append(of_set)
        strings.append(of_string)
        own.append(words[of_set - 2].strip() == "current")
    return Example(model, means_n, nodes, batch, *map(torch.tensor, (sets, strings, own)))


def test_the_circuit_alone_answers(example: Example) -> None:
    layout = NodeLayout(example.model.config)
    own, other = example.adds(ablate(layout, layout.mask(example.nodes), example.means_n))
    assert len(example.own_b) == 512
    assert own >= 0.99
    assert other <= 0.01
    assert len(example.nodes) == 154


def test_the_circuit_uses_one_head_of_each_layer_and_one_that_finds_set(example: Example) -> None:
    heads = {
        (node.layer, node.channel // example.model.config.d_head)
        for node in example.nodes
        if node.site in {Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V}
    }
    assert heads == {(0, NAME), (0, 5), (1, BINDING)}


def test_at_set_a_head_reads_the_name_and_at_the_end_another_reads_the_set_of_that_name(
    example: Example,
) -> None:
    rows = torch.arange(len(example.own_b))
    first, second = (example.seen(Site.ATTN_PATTERN, layer) for layer in (0, 1))
    to_name_b = first[rows, NAME, example.set_b, example.set_b - 2]
    to_set_b = second[rows, BINDING, example.batch.last_b, example.set_b]
    assert to_name_b[example.own_b].mean() >= 0.9
    assert to_set_b[example.own_b].mean() >= 0.8
    assert to_set_b[~example.own_b].mean() <= 0.1


def test_two_keys_at_set_say_whose_it_is(example: Example) -> None:
    rows = torch.arange(len(example.own_b))
    keys_bc = example.seen(Site.ATTN_K, 1)[rows, example.set_b]

    def written(prompts_b: Tensor) -> Tap:
        def change(k_btc: Tensor) -> Tensor:
            k_btc = k_btc.clone()
            for key in KEYS:
                channel = example.channel(BINDING, key)
                k_btc[rows, example.set_b, channel] = keys_bc[prompts_b, channel].mean()
            return k_btc

        return at_site(Site.ATTN_K, 1, change)

    assert example.adds() == pytest.approx((1, 0), abs=0.01)
    assert example.adds(written(example.own_b)) == pytest.approx((1, 1), abs=0.01)
    assert example.adds(written(~example.own_b)) == pytest.approx((0, 0), abs=0.01)


def test_with_the_names_exchanged_for_the_first_head_most_answers_change(example: Example) -> None:
    rows, channels = torch.arange(len(example.own_b)), slice(16 * NAME, 16 * (NAME + 1))
    assert example.model.config.d_head == 16

    def exchange(v_btc: Tensor) -> Tensor:
        changed_btc = v_btc.clone()
        for into_b, from_b in ((example.set_b, example.string_b), (example.string_b, example.set_b)):
            changed_btc[rows, into_b - 2, channels] = v_btc[rows, from_b - 2, channels]
        return changed_btc

    own, other = example.adds(at_site(Site.ATTN_V, 0, exchange))
    assert own <= 0.1
    assert other >= 0.85


def test_one_value_carries_the_answer(example: Example) -> None:
    layout = NodeLayout(example.model.config)
    value = Node(layer=1, site=Site.ATTN_V, channel=example.channel(BINDING, VALUE))
    own, other = example.adds(ablate(layout, ~layout.mask([value]), example.means_n))
    assert own <= 0.25
    assert other <= 0.01
