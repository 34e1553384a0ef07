"""The circuit of bracket_counting in docs/ counts: interventions on the number of brackets that it sees.

A bracket is taken away by freezing all keys and values of its token at their means, in both layers. What is
left of it is its own position, which no later token reads. A bracket is added by writing the keys and values
of another one over those of a comma. Everything happens in the circuit alone, the other nodes at their means.
docs/circuit.md has the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.data.tokenizer import Tokenizer, load_tokenizer
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import ablate, chain
from sparsity_lab.model.transformer import Transformer
from tests.model_in_docs import load_model_and_means, load_nodes, load_pairs

FOLDER = Path(__file__).parents[1] / "docs" / "bracket_counting"
CLOSINGS = ("]\n", "]]\n", "]]]\n")
Change = tuple[int, int | None]  # a position, and the one whose keys and values it gets; None: the means


class Prompt(NamedTuple):
    """A prompt whose list has no closed list in it: its tokens, its open brackets, and commas after them."""

    tokens: list[int]
    brackets: list[int]
    commas: list[int]


class Example(NamedTuple):
    model: Transformer
    alone: Transformer
    means_n: Tensor
    kept_n: Tensor
    tokenizer: Tokenizer
    prompts: Sequence[Prompt]

    def depth(self, prompt: Prompt, *changes: Change) -> int:
        """The number of brackets that the circuit closes, out of three answers, under these changes."""
        layout = NodeLayout(self.model.config)

        def tap(site: Site, layer: int, x_btc: Tensor) -> Tensor:
            if site not in (Site.ATTN_K, Site.ATTN_V):
                return x_btc
            changed_btc = x_btc.clone()
            for position, source in changes:
                means_c = self.means_n[layout.slices[site, layer]]
                changed_btc[:, position] = means_c if source is None else x_btc[:, source]
            return changed_btc

        frozen = ablate(layout, self.kept_n, self.means_n)
        with torch.no_grad():
            logits_v = self.alone(torch.tensor([prompt.tokens]), chain(frozen, tap))[0, -1]
        answers = [self.tokenizer.encode(closing)[0] for closing in CLOSINGS]
        return int(logits_v[answers].argmax()) + 1

    def share(
        self, opened: int, closed: int, changes: Callable[[Prompt], Sequence[Change]]
    ) -> tuple[float, int]:
        """How often the circuit closes `closed` brackets where `opened` are open; and of how many prompts."""
        asked = [prompt for prompt in self.prompts if len(prompt.brackets) == opened and prompt.commas]
        found = [self.depth(prompt, *changes(prompt)) == closed for prompt in asked]
        return sum(found) / len(found), len(found)


@pytest.fixture(scope="module")
def example() -> Example:
    model, means_n = load_model_and_means(FOLDER)
    tokenizer = load_tokenizer(FOLDER / "tokenizer.json")
    kept_n = NodeLayout(model.config).mask(load_nodes(FOLDER))
    return Example(model, close(model, kept_n), means_n, kept_n, tokenizer, list(plain_prompts(tokenizer)))


def plain_prompts(tokenizer: Tokenizer) -> Iterator[Prompt]:
    for pair in load_pairs(FOLDER):
        for text in (pair.positive, pair.negative):
            tokens = tokenizer.encode(text)
            words = [tokenizer.decode([token]) for token in tokens]
            start = max(index for index, word in enumerate(words) if "=" in word)
            brackets = [index for index in range(start, len(words)) if "[" in words[index]]
            commas = [index for index in range(brackets[-1], len(words)) if words[index] == ","]
            if "]" not in text[text.rindex("=") :]:
                yield Prompt(tokens, brackets, commas)


@pytest.mark.parametrize(("opened", "least"), [(1, 0.95), (2, 0.95), (3, 0.95)])
def test_the_circuit_closes_as_many_brackets_as_are_open(example: Example, opened: int, least: float) -> None:
    share, prompts = example.share(opened, opened, lambda prompt: [])
    assert share >= least
    assert prompts >= 10


@pytest.mark.parametrize("opened", [2, 3])
def test_without_the_innermost_bracket_it_closes_one_less(example: Example, opened: int) -> None:
    assert example.share(opened, opened - 1, lambda prompt: [(prompt.brackets[-1], None)])[0] >= 0.9
    # and not because a token is missing: without a comma it closes as many as before
    assert example.share(opened, opened, lambda prompt: [(prompt.commas[0], None)])[0] >= 0.8


def test_without_both_inner_brackets_of_three_it_closes_one(example: Example) -> None:
    share, _ = example.share(3, 1, lambda prompt: [(index, None) for index in prompt.brackets[1:]])
    assert share >= 0.95


def test_a_comma_that_looks_like_an_inner_bracket_makes_it_close_one_more(example: Example) -> None:
    assert example.share(2, 3, lambda prompt: [(prompt.commas[0], prompt.brackets[1])])[0] >= 0.95


def test_without_the_middle_bracket_of_three_it_closes_two(example: Example) -> None:
    assert example.share(3, 2, lambda prompt: [(prompt.brackets[1], None)])[0] >= 0.95


@pytest.mark.parametrize(("opened", "least"), [(1, 0.95), (2, 0.95), (3, 0.75)])
def test_the_outermost_bracket_which_is_another_token_is_not_counted(
    example: Example, opened: int, least: float
) -> None:
    prompt = next(prompt for prompt in example.prompts if len(prompt.brackets) == 3)
    words = [example.tokenizer.decode([prompt.tokens[index]]) for index in prompt.brackets]
    assert words == [" [", "[", "["]
    assert example.share(opened, opened, lambda prompt: [(prompt.brackets[0], None)])[0] >= least
