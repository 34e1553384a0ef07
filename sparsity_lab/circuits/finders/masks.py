"""Finder `masks`: the paper's learned masks (`circuits/mask_learning.py`), discretised by bisection.

1. learn the gates; order the nodes by tau; take the fewest that meet each target;
2. training goes astray when no set meets the main target, or only one of more than half the nodes; then learn
   again with another seed, at half the loss to aim at, up to `retries` times;
3. keep the smallest set of all tries for each target.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import NonNegativeInt

from sparsity_lab.circuits.config import MaskLearningConfig
from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator


class Config(MaskLearningConfig, FinderConfigBase):
    """Mask learning, and how often it is tried again."""

    kind: Literal["masks"] = "masks"
    retries: NonNegativeInt = 1

    @property
    def restored_share(self) -> float:
        """Masks trained under restoration are selected under it too."""
        return self.restore

    def for_controls(self, give_up: float | None) -> Self:
        """A control has one try, given up early."""
        return self.model_copy(update={"retries": 0, "give_up": give_up})


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """The smallest set found for each target, of all trainings of the masks."""
    from sparsity_lab.circuits.discretisation import smallest_prefixes
    from sparsity_lab.circuits.mask_learning import learn_masks

    main = targets[0]
    best: dict[float, Found] = {}
    for attempt in range(config.retries + 1):
        aimed = config.model_copy(update={"target": config.target / 2**attempt})
        masks = learn_masks(evaluator.model, evaluator.means_n, evaluator.data.train, aimed, seed + attempt)
        if len(masks.losses) < config.steps:
            continue  # given up
        order_n = masks.tau_n.argsort(descending=True, stable=True)
        guess = int((masks.tau_n > 0).sum())
        for target, kept_n in smallest_prefixes(evaluator, order_n, targets, guess).items():
            if target not in best or kept_n.sum() < best[target].kept_n.sum():
                best[target] = Found(
                    kept_n,
                    {
                        "restore": config.restore,
                        "penalty": config.penalty,
                        "k_coef": masks.k_coef,
                        "steps": config.steps,
                        "attempt": attempt,
                    },
                )
        if main in best and best[main].kept_n.float().mean() < 0.5:
            break
    return best
