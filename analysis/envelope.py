"""Ratios of sizes along the dense lower envelope, and their bootstrap intervals. Pure functions of arrays.

1. A sample holds the sizes of one configuration: a row per seed, a column per task. Seeds are averaged.
2. A dense model and the sparse one are compared on the tasks that both have, by the mean of the log ratios.
3. The lower envelope consists of the dense models that no other one beats in both loss and size. Between
   neighbours on it, log sizes are interpolated linearly in loss, task by task. Nothing is extrapolated.
4. Bootstrap, two levels: each draw resamples the seeds of every configuration with replacement, and then
   the clusters of tasks. Steps 1 to 3 are repeated in each draw, the choice on the envelope included. The
   interval is the 2.5th to the 97.5th percentile of the draws inside the dense models' range; the share of
   the others is told.

With one seed the first level does nothing, so the interval leaves out the variation between trainings. With
few seeds it is too narrow: the variance of n resampled seeds is (n - 1) / n of the true one.

Shape suffixes: b draws, s seeds, d dense configurations, t tasks, c clusters of tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

DRAWS = 10_000
INTERVAL = (2.5, 97.5)  # percent
LEAST_SHARE = 0.5  # of the tasks that the best dense model shares with the sparse one
LEAST_CLUSTERS = 4  # fewer kinds of task are too few to resample
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Sample:
    """One configuration: pretraining losses (s), and logs of sizes (s, t), NaN where there is no circuit."""

    loss_s: Array
    log_st: Array


class Averaged(NamedTuple):
    """A configuration's mean loss (b) and mean log sizes (b, t), over the seeds of each draw."""

    loss_b: Array
    log_bt: Array


class Compared(NamedTuple):
    """Log ratios (b), NaN where the loss is outside the dense models'.

    `below_b` and `above_b` are the dense models that each ratio is interpolated between. `share_b` is the
    weight of the latter.
    """

    log_b: Array
    below_b: Array
    above_b: Array
    share_b: Array


def logs(sizes: Sequence[Mapping[str, int]], tasks: Sequence[str]) -> Array:
    """Return the log sizes (s, t) of each seed's circuits. A size of 0 counts as 1."""
    rows = [[float(max(of[task], 1)) if task in of else np.nan for task in tasks] for of in sizes]
    return np.log(np.array(rows, dtype=float).reshape(len(sizes), len(tasks)))


def average(sample: Sample, picks_bs: Array | None = None) -> Averaged:
    """Average over seeds: all of them in one draw, or those that each draw has picked."""
    if picks_bs is None:
        picks_bs = np.arange(len(sample.loss_s))[None]
    return Averaged(sample.loss_s[picks_bs].mean(1), _mean(sample.log_st[picks_bs], 1.0, 1))


def pick_seeds(sample: Sample, generator: np.random.Generator, draws: int) -> Array:
    """Draw seeds with replacement (b, s)."""
    seeds = len(sample.loss_s)
    return generator.integers(seeds, size=(draws, seeds))


def pick_clusters(clusters: Sequence[str], generator: np.random.Generator, draws: int) -> Array:
    """Draw clusters with replacement; return how often each task was drawn (b, t).

    `clusters` names the cluster of each task.
    """
    names, of_task = np.unique(np.array(clusters, dtype=object).astype(str), return_inverse=True)
    picks_bc = generator.integers(len(names), size=(draws, len(names)))
    times_bc = (picks_bc[:, :, None] == np.arange(len(names))).sum(1)
    return np.asarray(times_bc[:, of_task], dtype=float)


def families(tasks: Sequence[str]) -> list[str]:
    """Name the family of each task: twins like `set_or_string` and `set_or_string_fixedvarname` are one."""
    return [
        min((other for other in tasks if task == other or task.startswith(f"{other}_")), key=len)
        for task in tasks
    ]


def eligible(sparse: Sample, dense: Sequence[Sample]) -> list[int]:
    """Return the dense samples that share at least half as many tasks with the sparse one as the best."""
    has_t = _has(sparse)
    shared = [int((has_t & _has(one)).sum()) for one in dense]
    return [i for i, count in enumerate(shared) if count and count >= LEAST_SHARE * max(shared)]


def along_envelope(sparse: Averaged, dense: Sequence[Averaged], times_bt: Array) -> Compared:
    """Compare a sparse model with the dense envelope at its loss, in every draw.

    `times_bt` weights the tasks. A model whose loss equals the sparse one's counts as the one below.
    """
    loss_bd = np.stack([one.loss_b for one in dense], 1)
    log_bdt = np.stack([one.log_bt for one in dense], 1) - sparse.log_bt[:, None]
    mean_bd = _mean(log_bdt, times_bt[:, None], 2)
    loss_b1 = sparse.loss_b[:, None]
    known_bd = ~np.isnan(mean_bd)
    at_most_bd = known_bd & (loss_bd <= loss_b1)
    inside_b = at_most_bd.any(1) & (known_bd & (loss_bd >= loss_b1)).any(1)
    below_b = np.where(at_most_bd, mean_bd, np.inf).argmin(1)
    rows_b = np.arange(len(below_b))
    smaller_bd = known_bd & (loss_bd > loss_b1) & (mean_bd < mean_bd[rows_b, below_b][:, None])
    above_b = np.where(smaller_bd, loss_bd, np.inf).argmin(1)
    above_b = np.where(smaller_bd.any(1), above_b, below_b)
    low_b, high_b = loss_bd[rows_b, below_b], loss_bd[rows_b, above_b]
    gap_b = high_b - low_b
    share_b = np.where(gap_b > 0, (sparse.loss_b - low_b) / np.where(gap_b > 0, gap_b, 1), 0.0)
    above_b = np.where(share_b > 0, above_b, below_b)  # a model of weight 0 may lack tasks
    at_loss_bt = (1 - share_b)[:, None] * log_bdt[rows_b, below_b] + share_b[:, None] * log_bdt[
        rows_b, above_b
    ]
    return Compared(np.where(inside_b, _mean(at_loss_bt, times_bt, 1), np.nan), below_b, above_b, share_b)


def side_by_side(ours: Averaged, theirs: Averaged, times_bt: Array) -> Array:
    """Return the log ratio of their sizes to ours (b), whatever the losses, on the tasks that both have."""
    return _mean(theirs.log_bt - ours.log_bt, times_bt, 1)


def bootstrap(
    sparse: Sample, dense: Sequence[Sample], clusters: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> tuple[Array, float]:
    """Return the log ratios of the draws that are inside the dense models' range, and the share of others.

    `clusters` names the cluster of each task. The same seed gives the same draws.
    """
    generator = np.random.default_rng(seed)
    ours, *theirs = (average(one, pick_seeds(one, generator, draws)) for one in (sparse, *dense))
    log_b = along_envelope(ours, theirs, pick_clusters(clusters, generator, draws)).log_b
    inside_b = log_b[~np.isnan(log_b)]
    return inside_b, 1 - len(inside_b) / draws


def interval(log_b: Array) -> tuple[float, float]:
    """Return the 95 % percentile interval of the ratio."""
    low, high = np.exp(np.percentile(log_b, INTERVAL))
    return float(low), float(high)


def _has(sample: Sample) -> Array:
    """Return which tasks have a circuit in at least one seed (t)."""
    return np.asarray(~np.isnan(sample.log_st).all(0))


def _mean(values: Array, times: Array | float, axis: int) -> Array:
    """Average along `axis`, with weights and without NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    weights = np.broadcast_to(times, values.shape) * known
    total = weights.sum(axis)
    summed = (np.where(known, values, 0.0) * weights).sum(axis)
    return np.asarray(np.where(total > 0, summed / np.where(total > 0, total, 1), np.nan))
