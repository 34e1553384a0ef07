"""What steering did, as plain JSON, readable without torch (Gao et al. 2025, App. A.4, Fig. 9)."""

from pathlib import Path

from sparsity_lab.circuits.circuit import Node
from sparsity_lab.core.config import Config, validate
from sparsity_lab.core.files import read_json, write_json


class Candidate(Config):
    """A node, and the rise of the circuit's raw loss (nats) when it takes its value from the other prompt."""

    node: Node
    effect: float


class Steering(Config):
    """The dense model steered at `boundary` by the nodes' difference between the prompts of a pair.

    `probability[s]`: mean probability, at strength s, of the answer that is right for the pair's other
    prompt, over both prompts of the test pairs; `random[r][s]`: along random direction r of equal norm.
    `norm`: mean over prompts of |change| / |residual stream|, at strength 1. `kept`: probability of the
    prompt's own answer.
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
        """Probability at the last strength over that at the first, which is no steering."""
        return self.probability[-1] / self.probability[0]

    @property
    def times_random(self) -> float:
        """Probability at the last strength over that of the best random direction there."""
        return self.probability[-1] / max(curve[-1] for curve in self.random)


class SteeringResult(Config):
    """One task: the candidates by effect, and the steerings tried.

    By a single channel first, by the circuit's channels at each boundary, and by the whole read last."""

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
        UserError: the file is missing or is not one.
    """
    return validate(SteeringResult, read_json(path), str(path))
