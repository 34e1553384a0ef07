"""Write `metrics.csv`, and optionally mirror the run to Weights & Biases.

The run's own files are complete without W&B. An offline, unreachable or lost server affects only the mirror.
This module never prompts, never waits without limit, and writes only inside the run's folder.
"""

import csv
import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from sparsity_lab.core import metrics
from sparsity_lab.core.environment import environment_variables
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_text
from sparsity_lab.results.connection import choose_mode
from sparsity_lab.results.frames import to_frame
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.metrics_log import COLUMNS, MetricsLog
from sparsity_lab.results.record import METRICS_FILE, RECORD, RunRecord, TaskResult

log = logging.getLogger(__name__)

INIT_TIMEOUT = 15.0  # seconds to reach the server before falling back to offline
ARTIFACT_TIMEOUT = 60  # seconds for the server to accept an artifact that the next one refers to
FINISH_TIMEOUT = 120.0  # seconds to send pending data; unsent data stays in the run's folder


class Tracker:
    """The run's loggers and the mirror of its record. Use `track` to make one."""

    def __init__(self, folder: Path, run: Any = None) -> None:
        self.folder = folder
        self._run = run

    def loggers(self, folder: Path | None = None) -> list[MetricsLog]:
        """Make the Lightning loggers: `metrics.csv` in `folder` (default: the run's), and W&B if enabled."""
        return [MetricsLog(folder or self.folder, self._run)]

    def replay(self, path: Path) -> None:
        """Send a finished `metrics.csv` to W&B, for a model that an earlier run trained."""
        if self._run is None:
            return
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                self._run.log({name: float(value) for name, value in row.items() if value})

    def log_record(
        self,
        record: RunRecord,
        *,
        corpus: Path | None = None,
        model: Path | None = None,
        circuits: Iterable[Path] = (),
        plots: Iterable[Path] = (),
    ) -> None:
        """Mirror a finished run: config, summary, tables and curves of its tasks, files, and artifacts.

        The artifacts are corpus (the JSON files of the token folder), model and circuits, each derived from
        the one before. Runs that share a corpus or model share its artifact. `circuits` and `plots` are
        files. W&B failures are logged and do not fail the run.
        """
        if self._run is None:
            return
        try:
            self._mirror(record, sorted(plots))
            self._lineage(corpus, model, sorted(circuits))
        except (wandb.Error, WandbApiFailedError, OSError, ValueError) as error:
            log.warning("W&B did not take the results (%s); the run's own record is complete", error)

    def _mirror(self, record: RunRecord, plots: list[Path]) -> None:
        run = self._run
        run.config.update(record.config, allow_val_change=True)
        run.summary.update({**record.metrics, "name": record.name, "config_hash": record.config_hash})
        run.log({"tasks": _table(record)})
        if any(task.evidence for task in record.tasks):
            run.log({"evidence": _evidence_table(record)})
        if curves := [task for task in record.tasks if task.curve]:
            run.log({"circuit_sizes": _curves(curves)})
        for plot in plots:
            run.log({f"plots/{plot.stem}": wandb.Image(str(plot))})
        for name in (RECORD, METRICS_FILE):
            if (self.folder / name).exists():
                run.save(str(self.folder / name), base_path=str(self.folder), policy="now")

    def _lineage(self, corpus: Path | None, model: Path | None, circuits: list[Path]) -> None:
        origin: dict[str, str] = {}
        made: list[tuple[str, str, list[Path]]] = []
        if corpus:
            made.append(("corpus", corpus.name, sorted(corpus.glob("*.json"))))
        if model:
            made.append(("model", model.name, [model]))
        if circuits:
            made.append(("circuits", f"circuits-{self._run.id}", circuits))
        for kind, name, paths in made:
            artifact = _artifact(name, kind, paths, origin)
            self._run.log_artifact(artifact)
            if kind != "circuits" and not self._run.offline:  # offline, only the metadata record the origin
                artifact.wait(ARTIFACT_TIMEOUT)
                self._run.use_artifact(artifact)
            origin = origin | {kind: name}


def _curves(tasks: Sequence[TaskResult]) -> Any:
    """Plot edges against target loss, one line per task."""
    return wandb.plot.line_series(
        xs=[[point.target for point in task.curve] for task in tasks],
        ys=[[point.edges for point in task.curve] for task in tasks],
        keys=[task.task for task in tasks],
        title="Edges of the circuit against target loss",
        xname="target loss (nats)",
    )


def _table(record: RunRecord) -> wandb.Table:
    frame = to_frame([record]).astype(object)
    return wandb.Table(columns=list(frame.columns), data=frame.where(frame.notna(), None).to_numpy())


def _evidence_table(record: RunRecord) -> wandb.Table:
    """Make a row per check of each task. Its numbers share one cell: "name value unit; ..."."""
    rows: list[Iterable[Any]] = [
        [
            task.task,
            check.name,
            check.verdict,
            "; ".join(f"{m.name} {m.value:.4g} {m.unit}" for m in check.values),
            check.sentence,
        ]
        for task in record.tasks
        for check in task.evidence
    ]
    return wandb.Table(columns=["task", "check", "verdict", "values", "sentence"], data=rows)


def _artifact(name: str, kind: str, paths: list[Path], origin: Mapping[str, str]) -> wandb.Artifact:
    artifact = wandb.Artifact(name, type=kind, metadata={"made from": dict(origin)})
    for path in paths:  # "immutable": refer to files in place instead of copying a checkpoint
        if path.is_dir():
            artifact.add_dir(str(path), policy="immutable")
        else:
            # circuit files of different tasks have the same names
            name_in_artifact = f"{path.parent.name}/{path.name}"
            artifact.add_file(str(path), name=name_in_artifact, policy="immutable")
    return artifact


@contextmanager
def track(
    config: LoggerConfig,
    folder: Path,
    *,
    name: str,
    group: str | None = None,
    job_type: str = "run",
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Tracker]:
    """Track one run in `folder` inside a `with` block. W&B is always finished when the block ends.

    `group` is the sweep's name and `settings` the resolved config (plain containers).

    Raises:
        UserError: `mode` is "online" and there is no key or no connection.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _own_place(folder):
        mode = choose_mode(config)
        if mode == "disabled":
            yield Tracker(folder)
            return
        about = {"name": name, "group": group, "job_type": job_type, "config": dict(settings or {})}
        run = _start(config, mode, folder, about)
        exit_code = 1
        try:
            yield Tracker(folder, run)
            exit_code = 0
        finally:
            local = Path(run.dir).parent
            offline = bool(run.offline)
            started = time.monotonic()
            run.finish(exit_code=exit_code)
            if not offline and time.monotonic() - started >= FINISH_TIMEOUT:
                log.warning(
                    "W&B did not answer in time; to send the missing data later: wandb sync %s", local
                )
            if offline:
                log.info("W&B is offline; to send this run later: wandb sync %s", local)


def _start(config: LoggerConfig, mode: str, folder: Path, about: dict[str, Any]) -> Any:
    def init(mode: Literal["online", "offline"]) -> Any:
        return wandb.init(
            project=config.project,
            entity=config.entity,
            tags=list(config.tags),
            dir=str(folder),
            id=_run_id(folder),
            resume="allow" if mode == "online" else None,
            mode=mode,
            settings=_settings(),
            **about,
        )

    try:
        run = init("online" if mode == "online" else "offline")
    except wandb.Error as error:
        wandb.teardown()
        reason = str(error).partition("\n")[0]
        if config.mode == "online":
            raise UserError(
                f"logger.mode: 'online': W&B cannot be reached ({reason}); allowed: auto, offline"
            ) from None
        log.warning("W&B cannot be reached (%s); this run is tracked offline", reason)
        run = init("offline")
    if not run.offline:
        log.info("W&B: %s", run.url)
    # Use the column `step`: W&B's own step restarts at 0 when an offline run is resumed.
    for column in COLUMNS:
        run.define_metric(column, step_metric=None if column == metrics.STEP.name else metrics.STEP.name)
    return run


def _settings() -> wandb.Settings:
    return wandb.Settings(
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        console="off",
        silent=True,
        disable_git=True,  # a remote URL may contain a password; the record has the commit
        save_code=False,
        x_disable_meta=True,
        x_save_requirements=False,
    )


def _run_id(folder: Path) -> str:
    """Return the folder's W&B run id, making one if needed; a resumed run keeps its id."""
    path = folder / "wandb" / "run_id"
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def _own_place(folder: Path) -> Iterator[None]:
    """Keep W&B's staging, cache and downloads in the run's folder, not in the user's home, and W&B silent.

    The setting `silent` comes too late for messages about files and artifacts, so the environment variable is
    set as well.
    """
    kinds = ("DATA", "CACHE", "ARTIFACT")
    own = {f"WANDB_{kind}_DIR": str(folder / "wandb" / kind.lower()) for kind in kinds}
    own["WANDB_SILENT"] = "true"
    with environment_variables(own):
        yield
