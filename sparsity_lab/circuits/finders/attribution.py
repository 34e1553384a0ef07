"""Finder `attribution`: the fewest nodes of largest attribution that meet a target (`../attribution.py`).

The baseline that learned masks are measured against (Gao et al. 2025, Fig. 31).
"""

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator


class Config(FinderConfigBase):
    """`slope` "gradient": in the whole model; "integrated": mean over `steps` gates between 0 and 1.

    `pairs`: training pairs that attribution is averaged over.
    """

    kind: Literal["attribution"] = "attribution"
    slope: Literal["gradient", "integrated"] = "gradient"
    steps: PositiveInt = 8
    pairs: PositiveInt = 64

    @property
    def label(self) -> str:
        """The kind of slope."""
        return self.slope


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """The nodes of largest attribution, as few as bisection finds, for each target that all nodes meet."""
    import torch

    from sparsity_lab.circuits.attribution import attribution
    from sparsity_lab.circuits.discretisation import smallest_prefixes
    from sparsity_lab.core.hashing import derive_seed
    from sparsity_lab.tasks.batch import PairSampler

    generator = torch.Generator().manual_seed(derive_seed(seed, "attribution"))
    batch = PairSampler(evaluator.data.train, config.pairs, generator).draw()
    effect_n = attribution(evaluator.model, evaluator.means_n, batch, config.slope, config.steps).abs()
    order_n = effect_n.argsort(descending=True, stable=True)
    return {
        target: Found(kept_n, {}) for target, kept_n in smallest_prefixes(evaluator, order_n, targets).items()
    }
