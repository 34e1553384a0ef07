"""Finder `masks`: the paper's learned masks (`circuits/mask_learning.py`), discretised by bisection.

1. Learn the gates, rank the nodes by tau, and take the shortest prefix that meets each target.
2. Mask training has failed if no set meets the main target, or only a set of at least half the nodes does.
   Then learn again with another seed and half the target loss, up to `retries` times.
3. For each target, keep the smallest set of all attempts.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import NonNegativeInt

from sparsity_lab.circuits.config import MaskLearningConfig
from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator


class Config(MaskLearningConfig, FinderConfigBase):
    """Settings of mask learning, and the number of retries after a failed attempt."""

    kind: Literal["masks"] = "masks"
    retries: NonNegativeInt = 1

    @property
    def restored_share(self) -> float:
        """Share of nodes restored during selection; the same as during mask training."""
        return self.restore

    def for_controls(self, give_up: float | None) -> Self:
        """Return the config with a single attempt, which stops early at `give_up`."""
        return self.model_copy(update={"retries": 0, "give_up": give_up})


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """Return the smallest set found for each target over all attempts."""
    from sparsity_lab.circuits.discretisation import smallest_prefixes
    from sparsity_lab.circuits.mask_learning import learn_masks

    main = targets[0]
    best: dict[float, Found] = {}
    for attempt in range(config.retries + 1):
        aimed = config.model_copy(update={"target": config.target / 2**attempt})
        masks = learn_masks(
            evaluator.model, evaluator.means_n, evaluator.data.train, aimed, seed + attempt, evaluator.closed
        )
        if len(masks.losses) < config.steps:
            continue  # stopped early
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
