"""The contract of a finder: a module with a class `Config` and a function `find`. No torch is imported here.

    class Config(FinderConfigBase):
        kind: Literal["mine"] = "mine"
        pairs: PositiveInt = 64

    def find(evaluator, config, targets, seed):
        order_n = ...                               # the nodes, the most important first
        prefixes = smallest_prefixes(evaluator, order_n, targets)
        return {target: Found(kept_n, {}) for target, kept_n in prefixes.items()}

The module lies in this package, with its values in `conf/finder/KIND.yaml`, or it is a file of the user's own
(`finder=file finder.path=FILE`). Polish, edge pruning, record, evidence and pages need no change.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from sparsity_lab.core.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from sparsity_lab.circuits.evaluator import CircuitEvaluator

Notes = dict[str, str | int | float | bool | None]


class Found(NamedTuple):
    """The kept nodes, boolean (n), and what the circuit's provenance shall say of how they were found."""

    kept_n: "Tensor"
    notes: Notes


class FinderConfigBase(Config):
    """Base of every finder's `Config`. A file from outside may leave `kind` as it is."""

    kind: str = "file"

    @property
    def label(self) -> str:
        """The name of the method in a circuit's provenance and in plots."""
        return self.kind

    @property
    def restored_share(self) -> float:
        """Largest share of all nodes of which random subsets are restored when sets are selected; 0: none."""
        return 0.0

    def identity(self) -> dict[str, Any]:
        """All that the circuits depend on, as plain containers."""
        return self.model_dump(mode="json")

    def for_controls(self, give_up: float | None) -> Self:
        """The config of one try where there is nothing to find (`evidence/controls.py`).

        `give_up`: loss in nats; a try that is still far above it may be ended early as failed.
        """
        return self


class Find(Protocol):
    """The function `find` of a finder's module."""

    def __call__(
        self, evaluator: "CircuitEvaluator", config: Any, targets: tuple[float, ...], seed: int
    ) -> dict[float, Found]:
        """For each of `targets` (nats) that some set of nodes meets, the smallest set found.

        The main target comes first. A set meets a target if `evaluator.select_loss` of it is at most that.
        All randomness derives from `seed`.
        """
        ...
