"""The run program refuses what it would have to guess, before any work and in one line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sparsity_lab import run
from sparsity_lab.config import from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.sweep.sweeper import GridsSweeper, folder_of


def refuse(*overrides: str) -> None:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    hydra_config: Any = SimpleNamespace(
        overrides=SimpleNamespace(task=list(overrides)), runtime=SimpleNamespace(choices=choices)
    )
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    run.refuse_half_a_choice(from_hydra(plain), hydra_config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=dense"],
        ["model=dense", "model.d_model=128", "seed=3"],
        ["experiment=smoke", "model=dense"],
    ],
)
def test_a_dense_architecture_with_the_default_sparsity_is_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        refuse(*overrides)
    assert str(caught.value).startswith(
        "model=dense: sparsity=magnitude, the default, would make its weights"
    )
    assert "add sparsity=none for a dense model" in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=dense", "sparsity=none"],
        ["model=dense", "sparsity=magnitude"],
        ["model=dense", "sparsity.nonzeros=5000"],
        ["model=sparse", "sparsity=none"],
        ["sparsity=none"],  # a dense model of the default width
        ["model=dense", "reference=trained", "trainer.start=reference"],  # a dense model is made sparse
        ["model=gpt2", "model.path=x", "sparsity=none"],
    ],
    ids=" ".join,
)
def test_whatever_was_chosen_by_name_is_taken(overrides: list[str]) -> None:
    refuse(*overrides)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["root="], "root: '': a path must not be empty; the folder of the command is ."),
        (["root=null"], "root: None: must be a path; a folder of this name is ./null"),
        (["root=None"], "root: 'None': must be a path; a folder of this name is ./None"),
        (["root=", "-m", "seed=0,1"], "root: '': a path must not be empty; the folder of the command is ."),
        (["sweep_name=../out", "-m", "seed=0,1"], "sweep_name: '../out': allowed: 1 to 64 letters"),
        (["sweep_name=models", "-m"], "sweep_name: 'models': this name is taken; allowed: any but corpora"),
        (["seed=0,1", "-m", "root=a,b"], "root: a: one sweep has one root; give it on the command line"),
        (["sweep=mine"], "sweep=mine: to name your own sweep: sweep_name=mine; to choose a saved one"),
        (
            ["sweep=width_l0"],
            "sweep=width_l0: a sweep is chosen with a plus and run with -m: +sweep=width_l0 -m",
        ),
        (
            ["+sweep=mine", "-m"],
            "sweep=mine: no such option; to name your own sweep: sweep_name=mine; allowed: ",
        ),
        (["+sweep=width_l0", "seed=0"], "+sweep=width_l0: a sweep is run with -m: +sweep=width_l0 -m"),
        (["a=1", "--multi"], "a: unknown key"),  # argparse knows abbreviations
        (["--verbose"], "unrecognized arguments: --verbose; expected KEY=VALUE"),
        (
            ["corpus=folder", "corpus.path=~/x"],
            "corpus.path=~/x: not readable; quote the value: 'corpus.path=\"",
        ),
    ],
    ids=str,
)
def test_a_mistake_on_the_command_line_is_one_line_and_leaves_nothing(
    arguments: Sequence[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit) as ended:
        run.program()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == []


def sweeper(**values: Any) -> GridsSweeper:
    made = GridsSweeper([])
    made.config = DictConfig({"root": "out", "sweep_name": None} | values)
    return made


def test_a_sweep_can_be_named_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = sweeper(sweep_name="mine")
    jobs = [["seed=0", "sweep_name=mine"], ["seed=1", "sweep_name=mine"]]
    assert named._destination(jobs).folder == tmp_path / "out" / "mine"
    quoted = sweeper(root="~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quoted._destination([['root="~/x"', "seed=0"]]).folder == tmp_path / "x" / "single"


def test_a_grid_cannot_send_its_jobs_elsewhere() -> None:
    with pytest.raises(HydraException, match=r"^root: there: one sweep has one root; give it on the command"):
        sweeper()._destination([["seed=0", "root=there"], ["seed=1", "root=there"]])


@pytest.mark.parametrize("gone", [True, False])
def test_a_broken_pipe_ends_the_program_quietly_only_if_its_reader_has_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gone: bool
) -> None:
    """`start` treats the error that is passed on; any other is told."""

    def broken() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(run, "main", broken)
    monkeypatch.setattr(run, "reader_has_gone", lambda: gone)
    monkeypatch.setattr(run.signals, "take_over", lambda: None)
    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(BrokenPipeError if gone else SystemExit):
        run.program()
    assert capsys.readouterr().err == ("" if gone else "a file: Broken pipe\n")
