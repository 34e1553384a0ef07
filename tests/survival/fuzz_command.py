"""Random command lines: a run that is composed and validated, or one line for each mistake and exit status 1.

    python tests/survival/fuzz_command.py 2000

Hypothesis draws overrides: keys of the config, mistyped keys, groups, options, and values of right and wrong
kinds, quoted well and badly. Each command line goes through `run.program`, as a user's does. Only the work of
a valid run is left out.
"""

import contextlib
import functools
import io
import logging
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf._utils import get_yaml_loader
from pydantic import BaseModel

from sparsity_lab import run
from sparsity_lab.config import RunConfig
from sparsity_lab.sweep import refusals
from sparsity_lab.sweep.sweeper import folder_of

PIPELINE = "sparsity_lab.stages.pipeline"
# what only a library or Python says
FORBIDDEN = (
    "Traceback", "Warning", "Error:", "Exception", "validation error", "https://", "literal[", "tuple[",
    "function-", "object at 0x", "append to your", "NoneType", "None of",
)  # fmt: skip


def keys_of(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key that the config class `cls` knows, in all its unions' members, as `section.key`."""
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            yield f"{prefix}{name}"
            yield from keys_of(field.annotation, f"{prefix}{name}.")
    else:
        for part in get_args(cls):
            yield from keys_of(part, prefix)


CONF = folder_of("conf")
KEYS = sorted({*keys_of(RunConfig)} - {"root"})
GROUPS = sorted({path.parent.name for path in CONF.glob("*/*.yaml")})
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))
VALUES = [
    "null", "true", "on", "0", "-1", "1", "2", "7", "1e6", "1.5", "0.25", "nan", "inf", "-inf", "1e400",
    "1000000000000000000000", "[]", "[1]", "[0.1,0.3]", "[a,b]", "{}", "{a: 1}", "[[1],[2]]", "x", "all",
    "with_as", "[with_as]", "[with_as,nothing]", "transformer", "masks", "''", "'\"'", '""', "'~/x'", "~/x",
    "a b", "a:b", "a/b", "../x", "$HOME", "${seed}", "${nothing}", "${oc.env:NOTHING}", "${", "}", "[", "(",
    "a=b", "@", "%", "\\", "é", "\u202e", "\x1b[31m", "1,2", "range(3)", "choice(1,2)", "glob(*)",
    "int(3)", "nothing.py", "a" * 300, "???", "!!python/object:os.system", "0x10", "1_000", "01",
]  # fmt: skip
BARE = [
    "", "=", "+", "~", "smoke", "--", "-x", "--nothing", "--multirun=3", "~seed", "~corpus", "~model.d_model",
    "~nothing", "~steering", "+sweep=width_l0", "+sweep=nothing", "sweep=x", "++seed=3", "+seed=3", "seed",
    "+new=1", "+new.key=1", "++model.new=1", "hydra.verbose=maybe", "hydra.job.chdir=true", "hydra.nothing=1",
    "hydra.run.dir=logs", "hydra/launcher=nothing", "hydra/sweeper=nothing", "experiment=gpt2",
    "experiment=[smoke,bridge]", "model@reference.model=dense", "model@nothing", "trainer@x.y=default",
    "-h", "--cfg=job", "--cfg", "--config-name=nothing", "--config-dir=nothing", "--package=x", "-m", "--run",
    "-m", "trainer.tokens=1e6", "tasks.names=with_as", "pruning.targets=0.15", "logger.tags=a", "seed=1,2",
]  # fmt: skip


def mistyped(key: str, place: int) -> str:
    """Drop one character of a key."""
    place %= len(key)
    return key[:place] + key[place + 1 :]


KEY = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(KEYS),
    st.builds(mistyped, st.sampled_from(KEYS), st.integers(0, 40)),
    st.builds("{}.{}".format, st.sampled_from([*GROUPS, "nothing"]), st.sampled_from(KEYS)),
)
VALUE = st.one_of(st.sampled_from(VALUES), st.integers().map(str), st.floats().map(str), st.text(max_size=8))
OVERRIDE = st.one_of(
    st.builds("{}={}".format, KEY, VALUE),
    st.builds("{}={}".format, KEY, VALUE),
    st.sampled_from(OPTIONS),
    st.builds("{}={}".format, st.sampled_from(GROUPS), VALUE),
    st.builds(lambda prefix, key: prefix + key, st.sampled_from(["+", "++", "~"]), KEY),
    st.builds("{}{}={}".format, st.sampled_from(["+", "++", "~"]), KEY, VALUE),
    st.sampled_from(BARE),
)
COMMAND = st.lists(OVERRIDE.filter(lambda text: "\0" not in text), min_size=1, max_size=3)


class Outcome(BaseModel):
    """How a command line ended: exit status, everything written, and whether a run would have begun."""

    status: int
    output: str
    runs: int


def outcome(command: list[str]) -> Outcome:
    """Call the program with `command`, in the working directory; no run is begun."""
    configs: list[RunConfig] = []

    def begun(config: RunConfig, *rest: Any) -> tuple[Any, bool]:
        configs.append(config)
        return types.SimpleNamespace(name=config.name), True

    written, status = io.StringIO(), 0
    with (
        _own_logging(),
        _in_place_of_pipeline(begun),
        mock.patch.object(sys, "argv", ["run", *command]),
        contextlib.redirect_stdout(written),
        contextlib.redirect_stderr(written),
    ):
        try:
            run.program()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
    return Outcome(status=status, output=written.getvalue(), runs=len(configs))


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Undo the block's changes of logging, and close the log files that it has opened, as its end would."""
    root, raising = logging.getLogger(), logging.raiseExceptions
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:], logging.raiseExceptions = handlers, raising
        root.setLevel(level)


@contextlib.contextmanager
def _in_place_of_pipeline(begun: Any) -> Iterator[None]:
    """Let the program call `begun` instead of `stages.pipeline.run`, without importing that module."""
    before, stand_in = sys.modules.get(PIPELINE), types.ModuleType(PIPELINE)
    stand_in.run = begun  # type: ignore[attr-defined]
    sys.modules[PIPELINE] = stand_in
    try:
        yield
    finally:
        del sys.modules[PIPELINE]
        if before is not None:
            sys.modules[PIPELINE] = before


def fault(command: list[str], found: Outcome) -> str:
    """Say what is wrong with an outcome; empty if it is a run, a help text, or lines about the mistakes."""
    if found.status == 0:
        asked = {"-h", "--help", "--cfg"} & {word.partition("=")[0] for word in command}
        return "" if found.runs or asked else "exit status 0 without a run"
    if found.status not in (1, 2):
        return f"exit status {found.status}"
    if not found.output.strip():
        return "nothing is said"
    typed = " ".join(command)
    if said := [text for text in FORBIDDEN if text in found.output and text not in typed]:
        return f"says {said[0]!r}"
    lines = found.output.rstrip("\n").split("\n")
    if not all(line.replace("\t", " ").isprintable() for line in lines):
        return "a line cannot be printed"
    table = next((i for i, line in enumerate(lines) if " the jobs of " in line[:30]), len(lines))
    said_now = lines[:table]  # a sweep's table tells the errors of all jobs of the folder
    told = [line for line in said_now if " failed: " not in line[:20] and not line.startswith("log: ")]
    return "" if 0 < len(told) <= 8 * len(command) else f"{len(told)} lines"


def fuzz(examples: int) -> tuple[int, int]:
    """Try `examples` command lines in the working directory; return how many were refused, and how many ran.

    Raises:
        AssertionError: some outcomes are neither; all are shown.
    """
    counts, faults = [0, 0], list[str]()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(COMMAND)
    def one(command: list[str]) -> None:
        try:
            found = outcome(command)
        except Exception as error:
            faults.append(f"lets through {error!r}\n{command!r}")
            return
        if wrong := fault(command, found):
            faults.append(f"{wrong}\n{command!r}\n{found.output}")
            sys.stderr.write(f"{faults[-1]}\n")
        counts[found.status == 0] += 1
        if sum(counts) % 100 == 0:
            sys.stderr.write(f"{sum(counts)} tried, {len(faults)} faults\n")

    with _faster():
        one()
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)
    return counts[0], counts[1]


@contextlib.contextmanager
def _faster() -> Iterator[None]:
    """Make a command line three times as fast, with the same outcome.

    Hydra would parse the same files each time, and compose every config once more for the value of
    `hydra.mode`, which no command line of ours gives.
    """
    parse = functools.cache(functools.partial(yaml.load, Loader=get_yaml_loader()))
    with (
        mock.patch("hydra._internal.hydra.Hydra.get_mode", return_value=None),
        mock.patch("omegaconf.omegaconf.yaml.load", lambda file, Loader: deepcopy(parse(file.read()))),
        mock.patch.object(refusals, "_keys", functools.cache(refusals._keys)),
    ):
        yield


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Work and have a home below `folder`."""
    below = folder / "home" / "work"
    below.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(below)
    try:
        with mock.patch.dict(os.environ, {"HOME": str(folder / "home")}):
            yield
    finally:
        os.chdir(before)


def main() -> None:
    """The command."""
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder, own_folder(Path(folder)):
        refused, ran = fuzz(examples)
    sys.stdout.write(
        f"{refused + ran} command lines: {refused} refused in a line, {ran} composed and valid\n"
    )


if __name__ == "__main__":
    main()
