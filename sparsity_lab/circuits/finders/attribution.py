"""Finder `attribution`: keep the nodes with the largest attribution (`circuits/attribution.py`).

It is the baseline for learned masks (Gao et al. 2025, Fig. 31).
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import PositiveInt

from sparsity_lab.circuits.finders.finder import FinderConfigBase, Found

if TYPE_CHECKING:
    from sparsity_lab.circuits.evaluator import CircuitEvaluator


class Config(FinderConfigBase):
    """Settings of attribution.

    `slope`: "gradient" takes the derivative in the whole model, "integrated" its mean over `steps` gate
    values between 0 and 1.
    `pairs`: number of training pairs that attribution is averaged over.
    """

    kind: Literal["attribution"] = "attribution"
    slope: Literal["gradient", "integrated"] = "gradient"
    steps: PositiveInt = 8
    pairs: PositiveInt = 64

    @property
    def label(self) -> str:
        """The kind of slope."""
        return self.slope

    def again(self, attempt: int, missed: bool) -> Self:
        """Average over more pairs in each further attempt."""
        return self.model_copy(update={"pairs": self.pairs * (attempt + 1)})


def find(
    evaluator: "CircuitEvaluator", config: Config, targets: tuple[float, ...], seed: int
) -> dict[float, Found]:
    """Return, for each target that the whole model meets, the fewest nodes of largest |attribution|."""
    import torch

    from sparsity_lab.circuits.attribution import attribution
    from sparsity_lab.circuits.discretisation import smallest_prefixes
    from sparsity_lab.circuits.tying import average
    from sparsity_lab.core.hashing import derive_seed
    from sparsity_lab.tasks.batch import PairSampler

    generator = torch.Generator().manual_seed(derive_seed(seed, "attribution"))
    batch = PairSampler(evaluator.data.train, config.pairs, generator).draw()
    effect_n = attribution(evaluator.model, evaluator.means_n, batch, config.slope, config.steps).abs()
    order_n = average(effect_n, evaluator.partner_n).argsort(descending=True, stable=True)
    return {
        target: Found(kept_n, {}) for target, kept_n in smallest_prefixes(evaluator, order_n, targets).items()
    }
