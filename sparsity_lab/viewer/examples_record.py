"""The data of a circuit page: prompts, activations, attention patterns and effects, as JSON without torch.

Texts are rows of indices into `vocabulary`, which holds tokens as strings. Numbers are rounded to four
significant digits.
"""

from pathlib import Path

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.files import read_json, write_json

EXAMPLES = "examples.json"
MAX_NODES = 256  # larger circuits are neither drawn nor given examples


def digits(value: float) -> float:
    """Round `value` to the four significant digits that these records keep."""
    return float(f"{value:.4g}")


Pattern = tuple[tuple[float, ...], ...]
"""Attention on one prompt: one row per query, over the positions up to it. The rest goes to the sink."""


class Excerpt(Config):
    """Row `text` of the texts, and a node's value at each token of the row."""

    text: int
    values: tuple[float, ...]


class Connection(Config):
    """A nonzero weight between the described node and `node`."""

    node: Node
    weight: float


class Connections(Config):
    """The whole model's weights into a node, or out of it.

    `total` counts the nonzero weights. `outside` holds the strongest whose other end is in no circuit.
    """

    total: int
    outside: tuple[Connection, ...]


class NodeExamples(Config):
    """One node in the whole model. `mean` is the value at which it is frozen when ablated.

    The excerpts show the task prompts and the windows of pretraining text where the node's value is highest
    and lowest, the most extreme first. Each text gives one excerpt, or none if its extreme is zero.
    """

    node: Node
    mean: float
    inputs: Connections
    outputs: Connections
    task_highest: tuple[Excerpt, ...]
    task_lowest: tuple[Excerpt, ...]
    text_highest: tuple[Excerpt, ...]
    text_lowest: tuple[Excerpt, ...]


class NodeInCircuit(Config):
    """One kept node as the circuit computes it.

    `effect`: rise of the circuit's selection loss (nats) when this node is frozen too; None if not measured.
    `at_end`: the node's mean value at the last token, over the prompts of each answer.
    `values`: the node's value at each token of each prompt shown.
    """

    effect: float | None
    at_end: tuple[float, float]
    values: tuple[tuple[float, ...], ...]


class Head(Config):
    """A head with at least one kept channel, and its attention on each prompt shown."""

    layer: int
    head: int
    patterns: tuple[Pattern, ...]


class CircuitExamples(Config):
    """The circuit of one target loss: its nodes in the circuit's order, and its heads.

    `logits`: the logits of both answers on each prompt shown.
    """

    target: float
    nodes: tuple[NodeInCircuit, ...]
    heads: tuple[Head, ...]
    logits: tuple[tuple[float, float], ...]


class Prompt(Config):
    """A prompt shown: its row of the texts, the right answer, and the whole model's logits of both."""

    text: int
    answers: tuple[str, str]
    right: int
    logits: tuple[float, float]


class ChannelWeights(Config):
    """A token's nonzero weights to or from the residual channels that kept nodes read or write."""

    token: str
    weights: tuple[tuple[int, float], ...]


class Examples(Config):
    """All examples of one task and model.

    `d_head`: number of channels of a head.
    `prompts`: pairs of prompts, the positive prompt first.
    `heads`: the heads in the whole model.
    `tokens`: embeddings of the tokens that distinguish the prompts of a pair, the most common first.
    `answers`: unembeddings of the first prompt's two answers.
    `same_answers`: whether all prompts have these answers.
    """

    task: str
    description: str
    model: str
    d_head: int
    vocabulary: tuple[str, ...]
    texts: tuple[tuple[int, ...], ...]
    prompts: tuple[Prompt, ...]
    nodes: tuple[NodeExamples, ...]
    heads: tuple[Head, ...]
    circuits: tuple[CircuitExamples, ...]
    tokens: tuple[ChannelWeights, ...]
    answers: tuple[ChannelWeights, ChannelWeights]
    same_answers: bool


def save_examples(examples: Examples, folder: Path) -> None:
    """Write `examples` as `examples.json` in `folder`."""
    write_json(folder / EXAMPLES, examples)


def load_examples(folder: Path) -> Examples:
    """Read the examples from their folder.

    Raises:
        UserError: the file is missing or does not contain examples.
    """
    path = folder / EXAMPLES
    return validate(Examples, read_json(path), str(path))
