"""Whose circuits get evidence, and what its folders depend on."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.stage import Built, Stage
from sparsity_lab.stages import evidence as stage
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper

NAMES = ["else_elif", "var_if", "final_kwarg"]
register_sweeper()


def config_of(*overrides: str) -> RunConfig:
    few = [f"tasks.n_{split}_pairs=2" for split in ("train", "select", "test")]
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", [f"tasks.names=[{','.join(NAMES)}]", *few, *overrides]))


@pytest.fixture
def circuits(tmp_path: Path) -> dict[str, Path]:
    """Folders of circuits at the main target, but for `final_kwarg`, which has none."""
    folders = {name: tmp_path / name for name in NAMES}
    for name, folder in folders.items():
        folder.mkdir()
        if name != "final_kwarg":
            (folder / "circuit-0.15.json").write_text(json.dumps({"task": name}))
    return folders


@pytest.fixture
def stages_of(
    circuits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:  # a function: overrides → stages by task
    monkeypatch.setattr(stage, "real_pieces", lambda seed: ("import this\n",))

    def stages(*overrides: str) -> dict[str, Stage]:
        asked = dict[str, Stage]()

        def build_many(given: Mapping[str, Stage], root: Path, load: Any) -> dict[str, Built]:
            asked.update(given)
            return {task: Built(one.folder(root), False) for task, one in given.items()}

        monkeypatch.setattr(stage, "build_many", build_many)
        context: Any = SimpleNamespace(inputs={"model": "hash"}, root=tmp_path)
        folders = stage.circuit_evidence(config_of(*overrides), context, circuits)
        assert folders == {task: one.folder(tmp_path) for task, one in asked.items()}
        return asked

    return stages


def test_every_circuit_at_the_main_target_is_checked(
    stages_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert stages_of().keys() == {"else_elif", "var_if"}
    assert caplog.text == ""


def test_named_tasks_alone_are_checked_and_one_without_a_circuit_is_told(
    stages_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert stages_of("evidence.tasks=[var_if]").keys() == {"var_if"}
    assert caplog.text == ""
    assert stages_of("evidence.tasks=[with_as,var_if,final_kwarg]").keys() == {"var_if"}
    assert "evidence.tasks: no circuit of with_as, final_kwarg at 0.15 nats" in caplog.text
    assert stages_of("evidence.tasks=final_kwarg") == {}


def test_which_others_are_checked_is_no_input_of_a_circuits_evidence(stages_of: Any) -> None:
    alone, all_of_them = stages_of("evidence.tasks=[var_if]"), stages_of()
    assert alone["var_if"].inputs == all_of_them["var_if"].inputs
    fewer = stages_of("evidence.tasks=[var_if]", "evidence.draws=2")
    assert fewer["var_if"].inputs != alone["var_if"].inputs


def test_a_config_that_names_no_tasks_is_written_as_before_there_were_such() -> None:
    assert "tasks" not in config_of().plain["evidence"]
    named = config_of("evidence.tasks=[var_if]")
    assert named.plain["evidence"]["tasks"] == ["var_if"]
    assert named.digest != config_of().digest


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("[var_if,nothing]", r"evidence\.tasks: unknown task \['nothing'\]; allowed: .*with_as"),
        ("[]", r"evidence\.tasks: \[\]: must be null or names of tasks, each once; .*evidence=none"),
        ("[var_if,var_if]", r"evidence\.tasks: \['var_if', 'var_if'\]: must be null or names"),
        ("3", r"evidence\.tasks\.0: 3: must be text"),
    ],
)
def test_other_values_are_refused_in_one_line(value: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        config_of(f"evidence.tasks={value}")
    assert "\n" not in str(error.value)
