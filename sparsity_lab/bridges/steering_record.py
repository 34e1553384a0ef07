"""The record of a steering experiment (Gao et al. 2025, App. A.4, Fig. 9): plain JSON, without torch."""

from pathlib import Path

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.files import read_json, write_json


class Candidate(Config):
    """A node, and its effect: the rise of the circuit's raw loss (nats) under resample ablation of the node.

    The node takes its value from the pair's other prompt.
    """

    node: Node
    effect: float


class Steering(Config):
    """The dense model steered at `boundary` by the nodes' difference between the prompts of a pair.

    `norm`: mean over prompts of |change| / |residual stream| at strength 1.
    `probability[s]`: probability, at strength index s, of the answer that is right for the pair's other
    prompt, averaged over both prompts of the test pairs.
    `kept[s]`: mean probability of the prompt's own answer.
    `random[r][s]`: as `probability`, for random direction r of equal norm.
    """

    name: str
    boundary: int
    nodes: tuple[Node, ...]
    norm: float
    probability: tuple[float, ...]
    kept: tuple[float, ...]
    random: tuple[tuple[float, ...], ...]

    @property
    def times_none(self) -> float:
        """The probability at the last strength divided by that without steering."""
        return self.probability[-1] / self.probability[0]

    @property
    def times_random(self) -> float:
        """The probability at the last strength divided by that of the best random direction."""
        return self.probability[-1] / max(curve[-1] for curve in self.random)


class SteeringResult(Config):
    """The results of one task: the candidates by descending effect, and the steerings.

    The steerings come in this order: the single channel, the circuit's channels at each boundary, and all
    residual channels.
    """

    task: str
    model: str
    dense: str
    pairs: int
    strengths: tuple[float, ...]
    candidates: tuple[Candidate, ...]
    steerings: tuple[Steering, ...]


def save_steering(result: SteeringResult, path: Path) -> None:
    """Write `result` as JSON."""
    write_json(path, result)


def load_steering(path: Path) -> SteeringResult:
    """Read a result.

    Raises:
        UserError: the file is missing or is not a steering result.
    """
    return validate(SteeringResult, read_json(path), str(path))
