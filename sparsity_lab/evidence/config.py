"""How much is asked of each circuit."""

from pydantic import NonNegativeInt, PositiveInt

from sparsity_lab.core.config import Config


class EvidenceConfig(Config):
    """How much is asked of each circuit.

    `pairs`: test pairs that the checks use; `draws`: random subsets restored, for each share of the nodes;
    `binarisation_steps`: of learning the two values of each node; `text_windows`: of pretraining text;
    `controls`: whether the same pruning is tried where there is nothing to find, which takes the longest.
    """

    enabled: bool = True
    pairs: PositiveInt = 64
    draws: PositiveInt = 4
    binarisation_steps: NonNegativeInt = 60
    text_windows: PositiveInt = 32
    controls: bool = True
    seed: NonNegativeInt = 0
