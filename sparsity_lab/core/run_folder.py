"""The layout of a run's folder. Every path inside it is defined here. This module does not import torch.

The folder holds the record, the config, the curves and pictures, and links to the folders of its stages. A
training snapshot under `snapshots/FRACTION` has the layout of a run.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TOKENS, MODEL, REFERENCE, AGREEMENT = "tokens", "model", "reference", "agreement"
CIRCUITS, EVIDENCE, EXAMPLES, STEERING = "circuits", "evidence", "examples", "steering"
SHORTCUTS, BASELINES, VALIDATION = "shortcuts", "baselines", "validation"
SNAPSHOTS = "snapshots"
LINKED = (
    CIRCUITS,
    EVIDENCE,
    EXAMPLES,
    STEERING,
    SHORTCUTS,
    SNAPSHOTS,
    TOKENS,
    MODEL,
    REFERENCE,
    AGREEMENT,
    BASELINES,
    VALIDATION,
)
RESULT = "result.json"
_PREFIX, _PLUS, _SUFFIX = "circuit-", "plus-", ".json"


def circuit_file(target: float, kind: str = "absolute") -> str:
    """Name of the file that holds a task's circuit at `target` nats.

    For a relative target, `target` is what it adds to the whole model's loss, as in `circuit-plus-0.15.json`.
    """
    return f"{_PREFIX}{_PLUS * (kind == 'relative')}{target:g}{_SUFFIX}"


def circuit_files(folder: Path) -> list[Path]:
    """The circuits in a folder of one task, ascending by target; those of relative targets come last."""

    def order(path: Path) -> tuple[bool, float]:
        written = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        return written.startswith(_PLUS), float(written.removeprefix(_PLUS))

    return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"), key=order)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, finished or not."""

    path: Path

    @property
    def record(self) -> Path:
        """The run's record, as JSON."""
        return self.path / "record.json"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The training curves."""
        return self.path / "metrics.csv"

    @property
    def timings(self) -> Path:
        """Seconds for each part of the run; written last, when the run is done."""
        return self.path / "timings.json"

    @property
    def tokens(self) -> Path:
        """The folder of packed tokens and the tokenizer."""
        return self.path / TOKENS

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.path / MODEL

    @property
    def reference(self) -> Path:
        """The reference model's folder, where the run has a reference model."""
        return self.path / REFERENCE

    @property
    def run_picture(self) -> Path:
        """The picture of this run."""
        return self.path / "run.png"

    @property
    def sweep_picture(self) -> Path:
        """The picture of the sweep so far."""
        return self.path / "sweep.png"

    def tasks(self) -> list[str]:
        """List the tasks that have a result here."""
        return sorted(path.parent.name for path in self.path.glob(f"{CIRCUITS}/*/{RESULT}"))

    def result(self, task: str) -> Path:
        """The task's result: whether the model learned it, and the sizes of its circuits."""
        return self.path / CIRCUITS / task / RESULT

    def circuit(self, task: str, target: float) -> Path:
        """The task's circuit at `target` nats."""
        return self.path / CIRCUITS / task / circuit_file(target)

    def circuits(self, task: str) -> list[Path]:
        """All circuits of the task, ascending by target."""
        return circuit_files(self.path / CIRCUITS / task)

    def evidence(self, task: str) -> Path:
        """The folder of the checks of the task's circuit at the main target."""
        return self.path / EVIDENCE / task

    def examples(self, task: str) -> Path:
        """The folder of the examples that the task's page shows."""
        return self.path / EXAMPLES / task

    def steering(self, task: str) -> Path:
        """The folder of the task's steering experiment."""
        return self.path / STEERING / task

    def page(self, task: str) -> Path:
        """The page of the task's circuits."""
        return self.path / "pages" / f"{task}.html"

    def snapshot(self, fraction: float) -> "RunFolder":
        """The folder of the snapshot taken after this fraction of training."""
        return RunFolder(self.path / SNAPSHOTS / str(fraction))

    def link(self, name: str, target: Path) -> None:
        """Make `name` a relative symbolic link to a stage's folder; it replaces an older one."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(target, path.parent))

    def link_all(self, links: Mapping[str, Path]) -> None:
        """Call `link` for every name and target."""
        for name, target in links.items():
            self.link(name, target)

    def remove_other_links(self, kept: Iterable[str]) -> None:
        """Remove the stage links that are not in `kept`; they come from an earlier state of the run."""
        paths = {self.path / name for name in kept}
        for name in LINKED:
            _clear(self.path / name, paths)


def _clear(path: Path, kept: Collection[Path]) -> None:
    """Remove the links at and below `path` that are not kept, and the folders that become empty."""
    if path.is_symlink():
        if path not in kept:
            path.unlink()
    elif path.is_dir():
        for inner in list(path.iterdir()):
            _clear(inner, kept)
        if not any(path.iterdir()):
            path.rmdir()
