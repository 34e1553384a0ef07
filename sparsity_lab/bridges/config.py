"""Settings of bridge training, and of steering a dense model through a bridge."""

import re

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from sparsity_lab.core.config import Config


class SteeringConfig(Config):
    """Settings of steering.

    `node`: the channel to steer by, LAYER.SITE.CHANNEL; null takes the candidate of largest effect.
    `strengths`: multiples of the change that are added; the first is 0, which is no steering.
    `pairs`: largest number of test pairs that are steered.
    """

    tasks: tuple[str, ...]
    node: str | None = None
    strengths: tuple[float, ...]
    random_directions: PositiveInt = 20
    pairs: PositiveInt = 64
    seed: NonNegativeInt = 0

    @field_validator("node")
    @classmethod
    def _named(cls, node: str | None) -> str | None:
        if node is not None and not re.fullmatch(r"\d+\.(attn|mlp)_(in|out)\.\d+", node):
            raise ValueError(
                "allowed: LAYER.SITE.CHANNEL, the site attn_in, attn_out, mlp_in or mlp_out, as 1.attn_in.37"
            )
        return node

    @field_validator("strengths")
    @classmethod
    def _from_none(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if len(strengths) < 2 or strengths[0] != 0 or list(strengths) != sorted(set(strengths)):
            raise ValueError("must ascend from 0, which is no steering")
        return strengths


class BridgeWeights(Config):
    """Weights of the loss's four terms."""

    cross_entropy: NonNegativeFloat = 1.0
    nmse: NonNegativeFloat = 1.0
    kl_into_sparse: NonNegativeFloat = 1.0
    kl_into_dense: NonNegativeFloat = 1.0


class BridgeConfig(Config):
    """Settings of bridge training.

    `activation_fraction`: k of the encoders' AbsTopK, as a share of the sparse width.
    `boundaries`: number of boundaries, drawn anew in each step, that the loss sums over; null sums over all.
    """

    activation_fraction: float
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    weights: BridgeWeights
    boundaries: PositiveInt | None = None

    @field_validator("activation_fraction")
    @classmethod
    def _share(cls, share: float) -> float:
        if not 0 < share <= 1:
            raise ValueError("must be above 0 and at most 1")
        return share
