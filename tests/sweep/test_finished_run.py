"""`of=RUN`: what the command does not give is RUN's; what would make another model is refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.stage import ABOUT, checksum
from sparsity_lab.data.folder import FolderConfig
from sparsity_lab.stages.finished_model import finished_model, refuse_another_model
from sparsity_lab.sweep.finished_run import CONFIG, OPTION, with_finished_run
from sparsity_lab.sweep.refusals import command_line_error
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper, register_sweeps

MADE_WITH = ["seed=3", "model.d_model=64", "finder.steps=7", "tasks=few", "logger=csv", "sweep_name=mine"]

register_sweeps()
register_sweeper()


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        yield


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run of MADE_WITH in the sweep `mine`, with its config alone."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path, MADE_WITH)


def write_run(root: Path, overrides: Sequence[str]) -> Path:
    config = from_hydra(compose("config", list(overrides)))
    folder = root / "runs" / "mine" / "some"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.plain))
    return folder


def composed(*arguments: str) -> RunConfig:
    found = with_finished_run(arguments)
    assert found == [*arguments, "--config-name", CONFIG]
    return from_hydra(compose(CONFIG, list(arguments)))


def test_without_of_the_command_is_as_it_was() -> None:
    assert with_finished_run(["seed=1", "finder=gradient"]) == ["seed=1", "finder=gradient"]


def test_every_value_is_the_runs_but_those_given(run: Path) -> None:
    before = RunConfig.model_validate_json(
        RunConfig.model_validate(from_hydra(compose("config", MADE_WITH))).model_dump_json()
    )
    assert composed(f"of={run}") == before.model_copy(update={"sweep_name": None})
    changed = composed(f"of={run}", "tasks.names=[with_as]", "finder.rate=0.1")
    assert changed.tasks.names == ("with_as",)
    assert changed.tasks.n_train_pairs == before.tasks.n_train_pairs
    assert changed.finder.model_dump() == before.finder.model_dump() | {"rate": 0.1}


def test_a_value_that_the_runs_file_leaves_out_can_be_given(run: Path) -> None:
    """The file of a run leaves out keys that are younger than it, and later keys at their defaults."""
    assert "freeze_norm" not in (run / "config.yaml").read_text()
    changed = composed(f"of={run}", "pruning.freeze_norm=true", "evidence=none")
    assert changed.pruning.freeze_norm
    assert changed.sparsity == composed(f"of={run}").sparsity


def test_a_group_is_replaced_as_a_whole(run: Path) -> None:
    config = composed(f"of={run}", "finder=integrated", "tasks=all")
    assert config.finder.kind == "attribution"
    assert config.tasks.names == "all"
    assert config.model.model_dump()["d_model"] == 64


def test_the_root_is_that_of_the_run_wherever_the_command_is_given(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert composed(f"of={run}").root.written == "runs"
    monkeypatch.chdir(run.parent)
    inside = composed("of=some")
    assert inside.root.absolute.resolve() == run.parents[1]
    refuse_another_model(inside, Path("some"), ["of=some"])


@pytest.mark.parametrize("earlier", [False, True])
def test_a_relative_path_of_the_run_is_the_same_file_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    for place in ("here", "there"):
        (tmp_path / place / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    run = write_run(tmp_path, [*MADE_WITH, "corpus=folder", "corpus.path=data"])
    if earlier:  # versions before wrote paths as they were given
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["corpus"]["path"] = "data"
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path / ("here" if earlier else "there"))
    again = composed(f"of={run}")
    assert isinstance(again.corpus, FolderConfig)
    assert again.corpus.path.absolute == tmp_path / "here" / "data"
    refuse_another_model(again, run, [f"of={run}"])


def test_a_file_of_tasks_that_has_changed_since_is_read_again(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    pairs = run / "pairs.jsonl"
    pairs.write_text("".join(_lines()))
    config["tasks"] |= {"path": str(pairs), "sha256": "0" * 64, "names": "all"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert composed(f"of={run}").tasks.asked() == ("pairs",)


def _lines() -> Iterator[str]:
    for i in range(40):
        yield f'{{"positive": "a {i}", "negative": "b {i}", "answers": ["x", "y"]}}\n'


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=1"], "seed: 1: the model of .* has 3; with of=RUN, allowed: tasks, finder"),
        (["model.d_model=128"], "model.d_model: 128: the model of .* has 64"),
        (["model.activation_fraction=0.5"], "model.activation_fraction: 0.5: the model of .* has 1.0"),
        (["trainer.tokens=5e6"], "trainer.tokens: 5000000: the model of"),
        (["sparsity=none"], "sparsity"),
        (["corpus=tinypython_quick"], "corpus.megabytes: 6.0: "),
        (["reference=trained"], "reference.*: the model of .* has None"),
        (["records=kept"], "records: kept: with of=RUN, allowed: null"),
        (["root=elsewhere"], r"root: elsewhere: of=.* lies below .*/runs; leave out root"),
        (["snapshots.fractions=[0.5,1.0]"], "snapshots.fractions: 0.5: .* no such snapshot; there: 1"),
    ],
    ids=str,
)
def test_what_would_make_another_model_is_refused(run: Path, overrides: list[str], message: str) -> None:
    config = composed(f"of={run}", *overrides)
    with pytest.raises(UserError, match=message) as caught:
        refuse_another_model(config, run, [f"of={run}", *overrides])
    assert "\n" not in str(caught.value)


def test_what_leaves_the_model_alone_is_taken(run: Path) -> None:
    overrides = [f"of={run}", "tasks=all", "finder=gradient", "pruning.seed=4", "evidence=none", "threads=1"]
    refuse_another_model(composed(*overrides, "seed=3"), run, [*overrides, "seed=3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["of=nowhere"], "of: .*/nowhere: no such folder; allowed: a run's folder"),
        (["of=."], "of: .*: has no config.yaml; allowed: a run's folder"),
        (["of="], "of=: allowed: of=RUN, the folder of one run"),
        (["of=a,b"], "of=a,b: allowed: of=RUN, the folder of one run"),
        (["of=a", "of=b"], "of=a of=b: allowed: of=RUN"),
        (["of=[a"], r"of=\[a: allowed: of=RUN"),
    ],
)
def test_a_wrong_of_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        with_finished_run(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "a: {", "root: 3", "\x00"])
def test_a_damaged_config_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config.yaml: ") as caught:
        with_finished_run([f"of={tmp_path}"])
    assert "\n" not in str(caught.value)


def stage_folder(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "file").write_text(name)
    about: dict[str, Any] = {"files": {"file": checksum(folder / "file")}}
    write_json(folder / ABOUT, about)
    return folder


def test_the_folders_of_the_model_are_those_of_the_run(run: Path) -> None:
    root = run.parents[1]
    with pytest.raises(UserError, match=r"no tokens/: its model is not trained; repeat its command"):
        finished_model(run, root)
    made = {name: stage_folder(root, f"{name}s/x") for name in ("token", "model")}
    (run / "tokens").symlink_to(made["token"])
    (run / "model").symlink_to(made["model"])
    found = finished_model(run, root)
    assert (found.tokens, found.model, found.reference) == (made["token"], made["model"], None)
    (made["model"] / "file").write_text("other")
    with pytest.raises(UserError, match=r"models/x/file: damaged"):
        finished_model(run, root)


def test_a_model_that_lies_elsewhere_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "tokens").symlink_to(stage_folder(tmp_path / "other", "tokens/x"))
    with pytest.raises(UserError, match=r"tokens/ is .*; allowed: a folder below"):
        finished_model(run, run.parents[1])


def test_the_runs_own_options_are_not_offered(run: Path) -> None:
    with pytest.raises(MissingConfigException) as caught:
        composed(f"of={run}", "model=spares")
    told = command_line_error(caught.value, ["model=spares"], folder_of("conf"))
    assert told is not None
    assert "allowed: " in told
    assert OPTION not in told
