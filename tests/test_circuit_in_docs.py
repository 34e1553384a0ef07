"""What docs/circuit.md says of one circuit, claim by claim, by interventions on the whole model.

docs/set_or_string holds a model of an earlier `make frontier` (d_model 256, 60,000 nonzero weights), its
tokenizer, the circuit, and the test pairs of the task as it was asked then, without competing variables. Of
the model's bigram table only the row of this task's last token is kept: the others are not read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, load_circuit
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, encode_pairs, logit_difference
from sparsity_lab.tasks.python import TASKS
from tests.model_in_docs import load_model_and_means, load_pairs

FOLDER = Path(__file__).parents[1] / "docs" / "set_or_string"
TASK = TASKS["set_or_string_fixedvarname"]
OPENING = 2  # the position of ` set` or ` ""` in every prompt
STRING_KEY, STRING_VALUE = (Site.ATTN_K, 128), (Site.ATTN_V, 130)  # of head 8
SET_KEY, SET_VALUE = (Site.ATTN_K, 255), (Site.ATTN_V, 245)  # of head 15
Channel = tuple[Site, int]


class Example(NamedTuple):
    model: Transformer
    means: Mapping[Channel, float]
    means_n: Tensor
    circuit: Circuit
    batch: TaskBatch


@pytest.fixture(scope="module")
def example() -> Example:
    model, means_n = load_model_and_means(FOLDER)
    circuit, layout = load_circuit(FOLDER / "circuit.json"), NodeLayout(model.config)
    values = means_n[layout.mask(circuit.nodes)].tolist()
    means = {(Site(n.site), n.channel): value for n, value in zip(circuit.nodes, values, strict=True)}
    batch = encode_pairs(TASK, load_pairs(FOLDER), load_tokenizer(FOLDER / "tokenizer.json"))
    return Example(model, means, means_n, circuit, batch)


def preference(example: Example, tap: Tap | None = None) -> tuple[float, float]:
    """Logit of `.add` minus that of ` +=`: mean over prompts of a set, and of a `""`."""
    with torch.no_grad():
        logit_diff_b = logit_difference(example.model, example.batch, tap)
    of_set, of_string = (logit_diff_b[example.batch.label_b == label] for label in (0, 1))
    return float(of_set.mean()), float(of_string.mean())


def frozen(example: Example, *channels: Channel) -> Tap:
    """The whole model with channels of layer 0 at their means, at every position."""

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        x_btc = x_btc.clone()
        for of, channel in channels:
            if layer == 0 and site is of:
                x_btc[..., channel] = example.means[of, channel]
        return x_btc

    return tap


def opening(example: Example, label: int) -> dict[Channel, float]:
    """Every key and value of layer 0 at the token that makes the variable, in a prompt of this kind."""
    found: dict[Channel, float] = {}

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        if layer == 0 and site in (Site.ATTN_K, Site.ATTN_V):
            found.update({(site, channel): value for channel, value in enumerate(x_btc[0, OPENING].tolist())})
        return x_btc

    row = int((example.batch.label_b == label).nonzero()[0])
    with torch.no_grad():
        example.model(example.batch.tokens_bt[row : row + 1], tap)
    return found


def written(values: Mapping[Channel, float]) -> Tap:
    """The whole model with these values in layer 0 at the token that makes the variable."""

    def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
        x_btc = x_btc.clone()
        for (of, channel), value in values.items():
            if layer == 0 and site is of:
                x_btc[:, OPENING, channel] = value
        return x_btc

    return tap


def test_the_circuit_alone_answers_every_prompt_and_is_small_enough_to_read(example: Example) -> None:
    kept_n = NodeLayout(example.model.config).mask(example.circuit.nodes)
    alone = ablate(NodeLayout(example.model.config), kept_n, example.means_n)
    with torch.no_grad():
        logit_diff_b = logit_difference(example.model, example.batch, alone)
    assert ((logit_diff_b > 0) == (example.batch.label_b == 0)).all()
    assert example.circuit.counts == (22, 17)
    assert preference(example)[0] > 3
    assert preference(example)[1] < -4


def test_head_8_finds_the_string_and_matters_for_it_alone(example: Example) -> None:
    of_set, of_string = preference(example)
    without = preference(example, frozen(example, STRING_KEY))
    assert without[1] > of_string / 4  # most of the preference for ` +=` is gone
    assert without[0] == pytest.approx(of_set, abs=0.5)


def test_head_15_finds_the_set_and_matters_for_it_alone(example: Example) -> None:
    of_string = preference(example)[1]
    without = preference(example, frozen(example, SET_KEY))
    assert without[0] < 0  # ` +=` even where the variable is a set
    assert without[1] == pytest.approx(of_string, abs=0.1)


@pytest.mark.parametrize(("key", "label"), [(STRING_KEY, 1), (SET_KEY, 0)])
def test_each_key_is_large_at_its_own_token(example: Example, key: Channel, label: int) -> None:
    assert abs(opening(example, label)[key]) > 5 * abs(opening(example, 1 - label)[key])


def test_two_keys_and_two_values_carry_most_of_what_the_token_says(example: Example) -> None:
    of_set = opening(example, 0)
    four = {channel: of_set[channel] for channel in (STRING_KEY, STRING_VALUE, SET_KEY, SET_VALUE)}
    before = preference(example)[1]
    moved, all_moved = (preference(example, written(values))[1] - before for values in (four, of_set))
    assert len(of_set) == 512
    assert moved > 0.8 * all_moved > 3
