"""What a page shows of a task's circuits: prompts, activations, patterns, effects; plain JSON, without torch.

Texts are rows of indices into `vocabulary`, tokens as strings; numbers are rounded to four digits.
"""

from pathlib import Path

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.files import read_json, write_json

EXAMPLES = "examples.json"
MAX_NODES = 256  # circuits with more nodes are neither drawn nor given examples


def digits(value: float) -> float:
    """`value` to four significant digits, as these records keep numbers."""
    return float(f"{value:.4g}")


Pattern = tuple[tuple[float, ...], ...]
"""Attention of one prompt: a row for each query, as long as it may look back; the sink takes what is left."""


class Excerpt(Config):
    """Row `text` of the texts, and a node's value at each of its tokens."""

    text: int
    values: tuple[float, ...]


class Connection(Config):
    """A nonzero weight between the node in question and `node`."""

    node: Node
    weight: float


class Connections(Config):
    """The whole model's weights on one side of a node.

    `total` counts the nonzero ones; `outside` are the strongest whose other end is in none of the circuits.
    """

    total: int
    outside: tuple[Connection, ...]


class NodeExamples(Config):
    """One node in the whole model. `mean` is what it is frozen at when ablated.

    Of the task's prompts, and of windows of pretraining text, those where its value is highest, and lowest:
    the highest first, one excerpt a text, none where the extreme is zero.
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

    `effect`: rise of the circuit's calibrated loss (nats) when this node is frozen too; None where it was not
    measured. `at_end`: its mean value at the last token of the prompts of each answer. `values`: at each
    token of each prompt shown.
    """

    effect: float | None
    at_end: tuple[float, float]
    values: tuple[tuple[float, ...], ...]


class Head(Config):
    """A head with a kept channel, and its attention on each prompt shown."""

    layer: int
    head: int
    patterns: tuple[Pattern, ...]


class CircuitExamples(Config):
    """What belongs to the circuit of one target loss: its nodes in the circuit's order, its heads.

    `logits`: of the two answers, for each prompt shown.
    """

    target: float
    nodes: tuple[NodeInCircuit, ...]
    heads: tuple[Head, ...]
    logits: tuple[tuple[float, float], ...]


class Prompt(Config):
    """A prompt shown: its row of the texts, which answer is right, the whole model's logits of both."""

    text: int
    answers: tuple[str, str]
    right: int
    logits: tuple[float, float]


class ChannelWeights(Config):
    """A token's nonzero weights to or from those residual channels that kept nodes read or write."""

    token: str
    weights: tuple[tuple[int, float], ...]


class Examples(Config):
    """Everything above, of one task and model.

    `prompts`: pairs, the positive prompt of each first. `heads`: in the whole model. `tokens`: those that
    tell the prompts of a pair apart, the commonest first, with their embeddings; `answers`: those of the
    first prompt shown, with their unembeddings; `same_answers`: all prompts have them. `d_head`: channels of
    a head.
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
        UserError: the file is missing or holds something else.
    """
    path = folder / EXAMPLES
    return validate(Examples, read_json(path), str(path))
