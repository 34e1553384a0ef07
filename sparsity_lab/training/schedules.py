"""What changes over training, as pure functions of progress in [0, 1] (Gao et al. 2025, §2.1, App. A.2)."""


def kept_fraction(progress: float, target: float, anneal_until: float) -> float:
    """Share of nonzero weights: linear from 1 to `target` until `anneal_until` of training, then constant."""
    if anneal_until <= 0:
        return target
    return 1 - (1 - target) * min(progress / anneal_until, 1.0)


def sharkfin(progress: float, warmup: float, kept: float) -> float:
    """Factor on the learning rate: linear warm-up, linear decay to 0, times 1 / sqrt(kept fraction).

    Annealing the weights does not help without the last factor (Fig. 25).
    """
    rising = progress / warmup if warmup > 0 else 1.0
    falling = (1 - progress) / (1 - warmup)
    return min(rising, falling) / kept**0.5
