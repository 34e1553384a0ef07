"""The contract of a finder: a module with a class `Config` and a function `find`. Imports no torch.

    class Config(FinderConfigBase):
        kind: Literal["mine"] = "mine"
        pairs: PositiveInt = 64

    def find(evaluator, config, targets, seed):
        order_n = ...                               # the nodes by descending importance
        prefixes = smallest_prefixes(evaluator, order_n, targets)
        return {target: Found(kept_n, {}) for target, kept_n in prefixes.items()}

The module is either part of this package, with its values in `conf/finder/KIND.yaml`, or the user's own file
(`finder=file finder.path=FILE`). Polish, edge pruning, record, evidence and pages work without changes.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from sparsity_lab.core.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from sparsity_lab.circuits.evaluator import CircuitEvaluator

Notes = dict[str, str | int | float | bool | None]


class Found(NamedTuple):
    """The kept nodes, boolean (n), and notes for the circuit's provenance on how they were found."""

    kept_n: "Tensor"
    notes: Notes


class FinderConfigBase(Config):
    """Base of every finder's `Config`. The user's own file need not override `kind`."""

    kind: str = "file"

    @property
    def label(self) -> str:
        """The name of the method in a circuit's provenance and in plots."""
        return self.kind

    @property
    def restored_share(self) -> float:
        """Largest share of all nodes in the random subsets restored during selection; 0 restores none."""
        return 0.0

    def identity(self) -> dict[str, Any]:
        """Return all settings that the circuits depend on, as plain containers."""
        return self.model_dump(mode="json")

    def again(self, attempt: int, missed: bool) -> Self:
        """Return the config for an attempt, 0 the first; later ones follow a search that may have failed.

        Every attempt has another seed. `missed`: no set of nodes has met the main target so far.
        """
        return self

    def for_controls(self, give_up: float | None) -> Self:
        """Return the config for one attempt on a control, which has no circuit (`evidence/controls.py`).

        An attempt whose loss stays far above `give_up` (nats) may stop early and count as failed.
        """
        return self


class Find(Protocol):
    """The function `find` of a finder's module."""

    def __call__(
        self, evaluator: "CircuitEvaluator", config: Any, targets: tuple[float, ...], seed: int
    ) -> dict[float, Found]:
        """Return the smallest set found for each of `targets` (nats) that some set of nodes meets.

        The main target comes first. A set meets a target if its `evaluator.select_loss` is at most that.
        All randomness must derive from `seed`.
        """
        ...
