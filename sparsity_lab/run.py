"""Command-line entry point, run by Hydra. The work is in `stages.pipeline`, imported after validation.

python -m sparsity_lab.run experiment=smoke
python -m sparsity_lab.run +sweep=width_l0 -m
python -m sparsity_lab.run of=runs/single/RUN tasks=all     the model of a finished run, asked other tasks
"""

import errno
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core import signals
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.names import destination
from sparsity_lab.core.paths import UserPath, relative_to
from sparsity_lab.core.program import reader_has_gone, start
from sparsity_lab.core.shown import printable_lines
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.stages.finished_model import refuse_another_model
from sparsity_lab.stages.foreseen import foreseen
from sparsity_lab.sweep.command_line import arranged
from sparsity_lab.sweep.finished_run import KEY, with_finished_run
from sparsity_lab.sweep.job_status import FOLDER, Job, at_work, write_status
from sparsity_lab.sweep.refusals import command_line_error, with_origin
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper, register_sweeps
from sparsity_lab.training.place import Place, hide_launchers, place, unused_processes

log = logging.getLogger(__name__)

register_sweeps()
register_sweeper(lambda config: foreseen(from_hydra(config), trains=finished_run(config) is None))


@hydra.main(version_base="1.3", config_path=str(folder_of("conf")), config_name="config")
def main(config: DictConfig) -> None:
    """Run one job. A failure is logged at once with the job's overrides and log file; other jobs continue.

    Raises:
        SystemExit: a single run failed or was interrupted.
        RuntimeError: a sweep's job failed or was interrupted. A built-in type can cross process boundaries.
    """
    # On a full disk logging fails too, and its tracebacks would hide the error.
    logging.raiseExceptions = False
    hydra_config = HydraConfig.get()
    sweep = hydra_config.runtime.choices.get("sweep")
    if sweep and hydra_config.mode == RunMode.RUN:
        sys.stderr.write(f"+sweep={sweep}: a sweep is run with -m: +sweep={sweep} -m\n")
        sys.exit(1)
    if hydra_config.mode == RunMode.MULTIRUN:
        if interrupted := signals.received():
            raise RuntimeError(f"not begun: {interrupted}")
        if "joblib" in hydra_config.launcher._target_.lower():
            signals.die_with_parent()
    with relative_to(Path(hydra_config.runtime.cwd)):  # hydra.job.chdir has changed the working directory
        valid, found = checked(config, hydra_config)
        is_first = hydra_config.mode == RunMode.RUN or hydra_config.job.num == 0
        if is_first and isinstance(valid, RunConfig) and (told := unused_processes(valid.trainer)):
            log.warning("%s", told)
        with hide_launchers(found):
            if found.rank == 0:
                ended, status = work(config, valid, hydra_config)
            else:
                ended, status = help_the_first(valid, finished_run(config))
    signals.requeue_if_preempted()
    if status and hydra_config.mode == RunMode.RUN:
        sys.exit(status)
    if status:
        raise RuntimeError(f"{ended.state}: {' '.join(ended.overrides)}: {ended.error}")


def checked(config: DictConfig, hydra_config: Any) -> tuple[RunConfig | Exception, Place]:
    """Return the validated config or its error, and this process's place; rank 0 if it is wrong."""
    alone = Place(0, 1, "none")
    try:
        valid = from_hydra(config)
        found = place(valid.trainer)
        if (of := finished_run(config)) is None:
            refuse_half_a_choice(valid, hydra_config)
        else:
            refuse_another_model(valid, of, hydra_config.overrides.task)
        submitit = "submitit" in hydra_config.get("launcher", {}).get("_target_", "")
        if found.launcher != "none" and hydra_config.mode == RunMode.MULTIRUN and not submitit:
            raise UserError(
                f"trainer.devices: {found.launcher} has started {found.size} processes, which would each run "
                "the sweep; allowed: one run without -m, or -m hydra/launcher=slurm_gpu"
            )
    except UserError as error:
        overrides, choices = hydra_config.overrides.task, hydra_config.runtime.choices
        return UserError(with_origin(str(error), overrides, choices, folder_of("conf"))), alone
    except Exception as error:
        return error, alone
    return valid, found


def finished_run(config: DictConfig) -> Path | None:
    """Return the folder of the run whose model the command asks for by `of=RUN`."""
    of = config.get(KEY)
    return None if of is None else UserPath(of).absolute


def refuse_half_a_choice(config: RunConfig, hydra_config: Any) -> None:
    """Refuse sparse weights for `model=dense`, unless the command asks for both.

    Raises:
        UserError: the command chooses `model=dense` and leaves `sparsity` at its default.
    """
    if not isinstance(config.model, ModelConfig) or config.trainer.start == "reference":
        return
    given = {override.lstrip("+").partition("=")[0] for override in hydra_config.overrides.task}
    model = hydra_config.runtime.choices.get("model")
    chosen = {key.partition(".")[0] for key in given}
    if model == "dense" and config.sparsity.is_sparse and "sparsity" not in chosen:
        kind = config.sparsity.kind
        raise UserError(
            f"model=dense: sparsity={kind}, the default, would make its weights sparse; add sparsity=none "
            f"for a dense model, or sparsity={kind} if that is meant"
        )


def work(config: DictConfig, valid: RunConfig | Exception, hydra_config: Any) -> tuple[Job, int]:
    """Run a job under its lock; return its final state, which is written too, and the exit status."""
    overrides = list(hydra_config.overrides.task)
    log_file = Path(hydra_config.runtime.output_dir) / f"{hydra_config.job.name}.log"
    signals.take_over()
    try:
        folder = destination(config.get("root"), config.get("sweep_name")).folder / FOLDER
        with at_work(folder, overrides, str(log_file)) as begun:
            ended, status = attempt(valid, begun, finished_run(config))
            write_status(folder, ended)
    except (OSError, UserError) as error:
        ended, status = Job(overrides=tuple(overrides), state="failed", error=explain(error)[0]), 1
        log.error("failed: %s\n%s", " ".join(overrides), ended.error)
    return ended, status


def help_the_first(valid: RunConfig | Exception, of: Path | None) -> tuple[Job, int]:
    """Train as a non-first process of srun or torchrun. The first process writes status and messages."""
    assert isinstance(valid, RunConfig)
    ended = Job(overrides=(), state="failed", error="the first process tells why")
    if of is not None:
        return ended, 0  # nothing is trained
    try:
        from sparsity_lab.stages.pipeline import help_run

        help_run(valid)
    except (UserError, signals.Interrupted):
        return ended, 1
    return ended, 0


def attempt(valid: RunConfig | Exception, begun: Job, of: Path | None) -> tuple[Job, int]:
    """Run a job; return its final state and the exit status. A config's error fails the job."""
    started, overrides = time.monotonic(), list(begun.overrides)
    ended, status = begun, 1
    try:
        if isinstance(valid, Exception):
            raise valid
        from sparsity_lab.stages.pipeline import run  # after validation: this import takes seconds

        record, is_new = run(valid, overrides, of)
        worked = begun.spent + time.monotonic() - started if is_new else begun.worked
        values = {"state": "finished" if is_new else "reused", "name": record.name, "worked": worked}
        ended, status = begun.model_copy(update=values), 0
    except (signals.Interrupted, KeyboardInterrupt, SystemExit) as interruption:
        status = getattr(interruption, "status", 130)
        spent = begun.spent + time.monotonic() - started
        ended = begun.model_copy(update={"state": "interrupted", "error": str(interruption), "spent": spent})
        log.error("interrupted: %s; to resume, repeat the command", " ".join(overrides))
    except Exception as error:
        message, expected = explain(error)
        ended = begun.model_copy(update={"state": "failed", "error": message})
        log.error(
            "failed: %s\n%s\nlog: %s",
            *(" ".join(overrides), message, begun.log),
            exc_info=None if expected else error,
        )
    return ended.model_copy(update={"memory": memory_used()}), status


def explain(error: Exception) -> tuple[str, bool]:
    """Return the message for a failure, and whether it was expected, so that no traceback is needed."""
    text = str(error) or type(error).__name__
    if isinstance(error, UserError):
        return text, True
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "; free some space; to resume, repeat the command" if full else ""
        return f"{error.filename or 'a file'}: {error.strerror}{remedy}", True
    if "No space left on device" in text or "os error 28" in text:  # as Rust and C++ libraries say it
        return f"{text.splitlines()[0]}; free some space; to resume, repeat the command", True
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text.lower():
        return f"out of memory: lower trainer.batch_size or the model's size ({text.splitlines()[0]})", True
    return f"{type(error).__name__}: {text}", False


def memory_used() -> int:
    """Return the peak resident size of this process in bytes, or 0 where the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def help_text(overrides: list[str]) -> str:
    """List every config group and value. Hydra's own help also loads all plugins, several times slower."""
    groups: dict[str, list[str]] = {}
    for path in sorted(folder_of("conf").glob("*/*.yaml")):
        groups.setdefault(path.parent.name, []).append(path.stem)
    groups["+sweep"] = sorted(path.stem for path in folder_of("sweeps").glob("*.yaml"))
    options = "\n".join(f"  {group}={' | '.join(names)}" for group, names in groups.items())
    with hydra.initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        values = OmegaConf.to_yaml(hydra.compose("config", overrides))
    return (
        "python -m sparsity_lab.run [KEY=VALUE ...]     one run\n"
        "python -m sparsity_lab.run [KEY=A,B ...] -m    a sweep: all combinations; +sweep=NAME: a saved one\n"
        "python -m sparsity_lab.run of=RUN [KEY=VALUE ...]    a finished run's model again: other tasks\n"
        "python -m sparsity_lab.status SWEEP            its progress; to resume it, repeat its command\n\n"
        f"Groups:\n{options}\n\nValues, each of which can be set:\n\n{values}\n"
        "--hydra-help: Hydra's own flags\n"
    )


def program() -> None:
    """Run the command line. Hydra's own errors become one line too."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises its errors instead of printing a traceback
    signals.take_over()
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            sys.stdout.write(help_text([word for word in sys.argv[1:] if not word.startswith("-")]))
            return
        sys.argv[1:] = with_finished_run(arranged(sys.argv[1:]))
        main()
    except signals.Interrupted as interrupted:
        sys.exit(interrupted.status)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_has_gone():
            raise
        told = command_line_error(error, sys.argv[1:], folder_of("conf"))
        if told is None and isinstance(error, OSError):
            told = explain(error)[0]
        if told is None:
            raise
        sys.stderr.write(f"{printable_lines(told)}\n")
        sys.exit(1)


if __name__ == "__main__":
    start(program)
