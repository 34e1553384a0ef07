"""Write `metrics.csv`, and optionally mirror the run to Weights & Biases.

The run's own files are complete without W&B. An offline, unreachable or lost server affects only the mirror.
This module never prompts, never waits without limit, and writes only inside the run's folder.

Each start of an unfinished run opens a part of its own below `wandb/`. A part holds all rows of
`metrics.csv`, also those of an earlier part, so that the last part is the whole run. A run that is finished
and mirrored opens no further part unless its record has changed.
"""

import csv
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import wandb

from sparsity_lab.core import metrics
from sparsity_lab.core.environment import environment_variables
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json, write_text
from sparsity_lab.core.foreign import foreign, one_line
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.results.connection import Mode, choose_mode, no_key, replaced_variables_hidden
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.metrics_log import COLUMNS, MetricsLog
from sparsity_lab.results.mirror import mirror_artifacts, mirror_record
from sparsity_lab.results.record import METRICS_FILE, RunRecord

log = logging.getLogger(__name__)

INIT_TIMEOUT = 15.0  # seconds to reach the server before falling back to offline
FINISH_TIMEOUT = 120.0  # seconds to send pending data; unsent data stays in the run's folder
MIRRORED = "mirrored.json"  # in the run's folder wandb/: the record that W&B has got, and where
UNMIRRORED = {"git_commit", "git_dirty", "packages", "python", "overrides"}  # changed alone, no new result


class Tracker:
    """The run's loggers and the mirror of its record. Use `track` to make one.

    `start` starts the W&B run; None tracks without W&B. `mirrored` is the hash of the record that W&B has.
    """

    def __init__(
        self, folder: Path, start: Callable[[], Any] | None = None, mirrored: str | None = None
    ) -> None:
        self.folder, self._start, self._mirrored = folder, start, mirrored
        self.run: Any = None
        self._sent = 0  # rows of metrics.csv that W&B has got
        self.complete: str | None = None  # hash of the record that this part holds

    def begin(self) -> None:
        """Start the W&B run, if it is wanted and has not been started."""
        if self.run is None and self._start is not None:
            self.run = self._start()
            # online, the server has the rows of earlier parts; a row is a step of W&B's own
            self._sent = 0 if self.run.offline else self.run.starting_step

    def loggers(self, folder: Path | None = None) -> list[MetricsLog]:
        """Make the Lightning loggers: `metrics.csv` in `folder` (default: the run's), and W&B if enabled."""
        self.begin()
        return [MetricsLog(folder or self.folder, self.run, self._send)]

    def replay(self, path: Path) -> None:
        """Send the rows of a `metrics.csv` that this part of the run has not sent yet."""
        if self.run is None:
            return
        with path.open(newline="", encoding="utf-8") as file:
            for index, row in enumerate(csv.DictReader(file)):
                self._send(index, {name: float(value) for name, value in row.items() if value})

    def _send(self, index: int, row: Mapping[str, float]) -> None:
        """Send row number `index` of `metrics.csv`, unless W&B has it."""
        if self.run is not None and index >= self._sent:
            self.run.log(dict(row))
            self._sent = index + 1

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
        files. W&B failures are logged and do not fail the run. W&B does not get the same record twice.
        """
        digest = content_hash(record.model_dump(mode="json", exclude=UNMIRRORED))
        if digest == self._mirrored:
            return
        self.begin()
        if self.run is None:
            return
        try:
            if (self.folder / METRICS_FILE).exists():
                self.replay(self.folder / METRICS_FILE)
            mirror_record(self.run, self.folder, record, sorted(plots))
            mirror_artifacts(self.run, corpus, model, sorted(circuits))
            self.complete = digest
        except Exception as error:
            told = one_line(error)
            log.warning("W&B did not take the results (%s); the run's own record is complete", told)

    def finish(self, exit_code: int) -> None:
        """End the W&B run and say how to send later what the server has not got."""
        if self.run is None:
            return
        local, offline, started = Path(self.run.dir).parent, bool(self.run.offline), time.monotonic()
        self.run.finish(exit_code=exit_code)
        _copy_links(local)
        late = not offline and time.monotonic() - started >= FINISH_TIMEOUT
        if self.complete is not None and not late:
            write_json(self.folder / "wandb" / MIRRORED, {"record": self.complete, "online": not offline})
        if late:
            log.warning("W&B did not answer in time; to send the missing data later: wandb sync %s", local)
        if offline:
            earlier = len(list(local.parent.glob("offline-run-*"))) - 1
            more = " (it holds the whole run; leave out the earlier parts)" if earlier else ""
            log.info("W&B is offline; to send this run later: wandb sync %s%s", local, more)


def _copy_links(part: Path) -> None:
    """Put copies in place of W&B's links, which are absolute and would break in a copied folder of runs."""
    for path in [path for path in part.rglob("*") if path.is_symlink()]:
        content = path.read_bytes() if path.is_file() else None
        path.unlink()
        if content is not None:
            path.write_bytes(content)


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
        UserError: `mode` is "online" and there is no key or no connection, or W&B refuses a setting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _own_place(folder):
        mode = choose_mode(config)
        if mode == "disabled":
            yield Tracker(folder)
            return
        about = {"name": name, "group": group, "job_type": job_type, "config": dict(settings or {})}
        logging.getLogger("wandb").propagate = False  # it logs tracebacks of what is told in a line here
        mirrored = _mirrored(folder, mode)
        tracker = Tracker(folder, lambda: _start(config, mode, folder, about), mirrored)
        if mirrored is None:
            tracker.begin()  # before the work: the server may refuse
        exit_code = 1
        try:
            yield tracker
            exit_code = 0
        finally:
            tracker.finish(exit_code)


def _mirrored(folder: Path, mode: Mode) -> str | None:
    """Return the hash of the record that W&B has; None if it has none, or has it offline only."""
    try:
        found = read_json(folder / "wandb" / MIRRORED)
        return str(found["record"]) if found["online"] or mode == "offline" else None
    except (UserError, KeyError, TypeError):
        return None


def _start(config: LoggerConfig, mode: Mode, folder: Path, about: dict[str, Any]) -> Any:
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

    if mode == "offline" and no_key(config):
        log.info("W&B: no key (wandb login), so this run is tracked offline")
    variables = ", ".join(
        sorted(key for key in os.environ if key.startswith("WANDB_") and key not in _own(folder))
    )
    with (
        replaced_variables_hidden(config),
        foreign(f"logger: W&B refuses a setting (variables that are set: {variables or 'none'})"),
    ):
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
        symlink=False,
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
    with environment_variables(_own(folder)):
        yield


def _own(folder: Path) -> dict[str, str]:
    kinds = ("DATA", "CACHE", "ARTIFACT")
    places = {f"WANDB_{kind}_DIR": str(folder / "wandb" / kind.lower()) for kind in kinds}
    return places | {"WANDB_SILENT": "true"}
