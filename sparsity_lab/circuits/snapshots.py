"""Circuit formation: the fractions of training at which circuits are found, and the overlap of two."""

from pydantic import field_validator

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.core.config import Config


class SnapshotsConfig(Config):
    """The `fractions` of training at which circuits are found. The last is 1, the trained model."""

    fractions: tuple[float, ...] = (1.0,)

    @field_validator("fractions")
    @classmethod
    def _to_the_end(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if (
            not fractions
            or list(fractions) != sorted(set(fractions))
            or fractions[0] <= 0
            or fractions[-1] != 1
        ):
            raise ValueError(
                "must be fractions of training above 0, ascending, each once, the last of them 1"
            )
        return fractions

    @property
    def before_the_end(self) -> tuple[float, ...]:
        """The fractions before the end of training."""
        return self.fractions[:-1]


def shared_nodes(one: Circuit, other: Circuit) -> int:
    """Count the nodes that two circuits of one architecture have in common."""
    return len({node.model_dump_json() for node in one.nodes} & {n.model_dump_json() for n in other.nodes})
