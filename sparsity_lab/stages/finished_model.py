"""The model of a finished run, for a run with `of=RUN`: what must be as it was, and where it lies.

This module does not import torch, so that a mistake is told at once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsity_lab.config import RunConfig
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.core.stage import intact
from sparsity_lab.sweep.finished_run import KEY, read_config, root_of

MADE_BY = ("seed", "corpus", "tokenizer", "model", "sparsity", "trainer", "reference", "bridge")
ALLOWED = "tasks, finder, pruning, evidence, steering, logger, threads, kernels, sweep_name"


def refuse_another_model(config: RunConfig, run: Path, overrides: Sequence[str]) -> None:
    """Check that `config` has the model, the text and the root of the finished run.

    Raises:
        UserError: it would have another model, or snapshots that the run has not taken.
    """
    before = read_config(run)
    forms = config.plain, config.model_dump(mode="json")  # runs of earlier versions hold paths as written
    if config.root.absolute.resolve() != root_of(run):
        raise UserError(f"root: {config.root}: {KEY}={run} lies below {root_of(run)}; leave out root")
    if config.records is not None:  # a record there stands for a model of this version's training
        raise UserError(f"records: {config.records}: with {KEY}=RUN, allowed: null")
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for section in MADE_BY:
        old, new, written = (dict(_leaves(values.get(section), section)) for values in (before, *forms))
        changed = [
            key
            for key in sorted(old.keys() | new.keys())
            if _differs(key, old, new, typed) and _differs(key, old, written, typed)
        ]
        if changed:
            raise UserError(
                f"{changed[0]}: {new.get(changed[0])!r}: the model of {run} has {old.get(changed[0])!r}; "
                f"with {KEY}=RUN, allowed: {ALLOWED}"
            )
    fractions = (before.get("snapshots") or {}).get("fractions") or [1.0]
    if lacking := [at for at in config.snapshots.before_the_end if at not in fractions]:
        there = ", ".join(f"{at:g}" for at in fractions)
        raise UserError(f"snapshots.fractions: {lacking[0]:g}: {run} has no such snapshot; there: {there}")


def _differs(key: str, old: Mapping[str, Any], new: Mapping[str, Any], typed: Collection[str]) -> bool:
    """Compare one leaf. A key that RUN's older version did not write has its default, unless it is given."""
    if key in old:
        return new.get(key) != old[key]
    above = (key.rsplit(".", count)[0] for count in range(1, key.count(".") + 1))
    return key in typed or any(parent in old for parent in above)


def _leaves(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}")
    else:
        yield key, values


@dataclass(frozen=True)
class FinishedModel:
    """The folders of the stages that made a run's model; `reference` is None if it has no reference model."""

    tokens: Path
    model: Path
    reference: Path | None


def finished_model(run: Path, root: Path) -> FinishedModel:
    """Return the folders of a run's model, each as it was written.

    Raises:
        UserError: the run has no trained model, or a folder is damaged or lies elsewhere.
    """
    folder = RunFolder(run)

    def target(link: Path) -> Path:
        place = link.resolve()
        if not place.is_dir():
            raise UserError(f"{KEY}: {run}: no {link.name}/: its model is not trained; repeat its command")
        if not place.is_relative_to(root.resolve()):
            raise UserError(f"{KEY}: {run}: {link.name}/ is {place}; allowed: a folder below {root}")
        return intact(root / place.relative_to(root.resolve()))

    reference = target(folder.reference) if folder.reference.is_symlink() else None
    return FinishedModel(target(folder.tokens), target(folder.model), reference)
