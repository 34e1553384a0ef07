"""A study: the trials of one hyperparameter search. Optuna stores several studies in one journal file.

1. `ask` starts a trial and draws a value for each tuned key. The first trial uses the config's values.
2. `tell` stores the trial's objectives, or its failure. A trial without a result is run again on resume.
3. `front` returns the Pareto front: the trials that no other trial dominates.

Optuna's tree-structured Parzen estimator draws the trials. It is seeded anew for each trial, so that a
resumed search proceeds as an uninterrupted one would.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import content_hash, derive_seed
from sparsity_lab.core.metrics import Metric

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution


def distribution(key: str, text: str) -> Distribution:
    """Parse a range in Hydra's syntax: `choice(a,b)`, `interval(0,1)`, `tag(log,interval(1,9))`.

    Raises:
        UserError: `text` is none of these.
    """
    override = OverridesParser.create().parse_override(f"{key}={text}")
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None:
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        low, high, log = value.start, value.end, "log" in value.tags
        return IntDistribution(int(low), int(high), log) if whole else FloatDistribution(low, high, log)
    raise UserError(f"{key}: {text}: no range; allowed: choice(...), interval(...), tag(log, interval(...))")


class Study:
    """The trials of the job with overrides `fixed`, over `space` (key → distribution).

    `defaults` holds the config's values of the keys. The first trial uses those that lie in the space.
    """

    def __init__(
        self,
        journal: Path,
        fixed: Sequence[str],
        space: Mapping[str, Distribution],
        objectives: Sequence[Metric],
        defaults: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.fixed, self.space, self.objectives, self.seed = tuple(fixed), space, objectives, seed
        optuna.logging.set_verbosity(logging.WARNING)
        described = {key: repr(drawn) for key, drawn in space.items()}
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=content_hash(self.fixed, described, [metric.name for metric in objectives]),
            directions=["maximize" if metric.better == "higher" else "minimize" for metric in objectives],
            load_if_exists=True,
        )
        if not self._study.get_trials(deepcopy=False):
            found = {key: _default(drawn, defaults.get(key)) for key, drawn in space.items()}
            self._study.enqueue_trial({key: value for key, value in found.items() if value is not None})

    def finished(self) -> list[FrozenTrial]:
        """Return the trials with objectives."""
        return self._study.get_trials(states=[TrialState.COMPLETE])

    def begun(self) -> list[FrozenTrial]:
        """Return the trials that have started but have no result."""
        return self._study.get_trials(states=[TrialState.RUNNING])

    def ask(self) -> FrozenTrial:
        """Start a new trial."""
        number = len(self._study.get_trials(deepcopy=False))
        seed = derive_seed(self.seed, "trial", *self.fixed, number) % 2**32
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        asked = self._study.ask(dict(self.space))
        return next(trial for trial in self.begun() if trial.number == asked.number)

    def tell(self, trial: FrozenTrial, measured: Mapping[str, float] | None) -> None:
        """Store a trial's metrics; a missing objective counts as the worst value. None marks a failure."""
        if measured is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
            return
        worst = {
            metric.name: -math.inf if metric.better == "higher" else math.inf for metric in self.objectives
        }
        self._study.tell(trial.number, [measured.get(name, value) for name, value in worst.items()])

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """Return the overrides of a trial's job."""
        return [*self.fixed, *(f"{key}={trial.params[key]}" for key in self.space)]

    def front(self) -> list[FrozenTrial]:
        """Return the Pareto front, ordered by objectives, without trials that lack an objective."""
        best = [trial for trial in self._study.best_trials if all(map(math.isfinite, trial.values))]
        return sorted(best, key=lambda trial: (trial.values, trial.number))


def _default(drawn: Distribution, value: Any) -> Any:
    """Return `value` if it lies in the distribution, in its type; else None."""
    if isinstance(drawn, CategoricalDistribution):
        return str(value) if str(value) in drawn.choices else None
    fits = isinstance(value, int | float) and drawn.low <= value <= drawn.high
    return value if fits else None
