"""A study: the trials of one search for good values, kept by Optuna in a journal file, several to a file.

1. ask: a trial draws a value for each tuned key, the first one the values that the config has anyway;
2. tell: its objectives, or that it failed. What was asked and never told of is asked again next time;
3. the front: the trials that no other is at least as good as in all objectives, and better in one.

Trials are drawn by Optuna's tree-structured Parzen estimator, seeded anew for each trial, so that a search
goes on after an interruption as it would have without.
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
    """What `key` is drawn from, in Hydra's words: `choice(a,b)`, `interval(0,1)`, `tag(log,interval(1,9))`.

    Raises:
        UserError: it is none of these.
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
    """The trials of the job that the overrides `fixed` make, over `space`, key → distribution.

    `defaults`: values of the keys in the config; the first trial has them, as far as the space does.
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
        """The trials that have been told their objectives."""
        return self._study.get_trials(states=[TrialState.COMPLETE])

    def begun(self) -> list[FrozenTrial]:
        """The trials that were asked and not told of."""
        return self._study.get_trials(states=[TrialState.RUNNING])

    def ask(self) -> FrozenTrial:
        """A new trial."""
        number = len(self._study.get_trials(deepcopy=False))
        seed = derive_seed(self.seed, "trial", *self.fixed, number) % 2**32
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        asked = self._study.ask(dict(self.space))
        return next(trial for trial in self.begun() if trial.number == asked.number)

    def tell(self, trial: FrozenTrial, measured: Mapping[str, float] | None) -> None:
        """A trial's metrics, of which an objective that is missing counts as the worst; None: it failed."""
        if measured is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
            return
        worst = {
            metric.name: -math.inf if metric.better == "higher" else math.inf for metric in self.objectives
        }
        self._study.tell(trial.number, [measured.get(name, value) for name, value in worst.items()])

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """The job that a trial is."""
        return [*self.fixed, *(f"{key}={trial.params[key]}" for key in self.space)]

    def front(self) -> list[FrozenTrial]:
        """The best trials, by their first objective; those that lack an objective are not among them."""
        best = [trial for trial in self._study.best_trials if all(map(math.isfinite, trial.values))]
        return sorted(best, key=lambda trial: (trial.values, trial.number))


def _default(drawn: Distribution, value: Any) -> Any:
    """`value` as the distribution has it; None if it does not."""
    if isinstance(drawn, CategoricalDistribution):
        return str(value) if str(value) in drawn.choices else None
    fits = isinstance(value, int | float) and drawn.low <= value <= drawn.high
    return value if fits else None
