"""Finder `masks`: the paper's learned masks (`circuits/mask_learning.py`), discretised by bisection.

The gates are learned and the nodes ranked by tau. For each target, the shortest prefix that meets it is kept.
"""

from typing import TYPE_CHECKING, Literal, Self

from sparsity_lab.circuits.config import MaskLearningConfig
from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator


class Config(MaskLearningConfig, FinderConfigBase):
    """Settings of mask learning."""

    kind: Literal["masks"] = "masks"

    @property
    def restored_share(self) -> float:
        """Share of nodes restored during selection; the same as during mask training."""
        return self.restore

    def again(self, attempt: int, missed: bool) -> Self:
        """Learn for more steps in each further attempt; if no set met the target, for half the loss."""
        longer = {
            "steps": self.steps * (attempt + 1),
            "drop_every": self.drop_every * (attempt + 1),
            "target": self.target / 2 if missed and attempt else self.target,
        }
        return self.model_copy(update=longer)

    def for_controls(self, give_up: float | None) -> Self:
        """Return the config of an attempt that stops early at `give_up`."""
        return self.model_copy(update={"give_up": give_up})


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """Return, for each target that is met, the fewest nodes of highest tau; none if training gave up."""
    from sparsity_lab.circuits.discretisation import smallest_prefixes
    from sparsity_lab.circuits.mask_learning import learn_masks

    key = f"{config} {seed} {evaluator.closed}"
    if key not in evaluator.memory:
        evaluator.memory[key] = learn_masks(
            evaluator.model,
            evaluator.means_n,
            evaluator.data.train,
            config,
            seed,
            evaluator.closed,
            evaluator.partner_n,
        )
    masks = evaluator.memory[key]
    if len(masks.losses) < config.steps:
        return {}
    order_n = masks.tau_n.argsort(descending=True, stable=True)
    guess = int((masks.tau_n > 0).sum())
    return {
        target: Found(
            kept_n,
            {
                "restore": config.restore,
                "penalty": config.penalty,
                "k_coef": masks.k_coef,
                "steps": config.steps,
            },
        )
        for target, kept_n in smallest_prefixes(evaluator, order_n, targets, guess).items()
    }
