"""The workspace shows the metrics that runs log, and W&B's own models accept it, and the agents' sweeps."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from analysis.dashboard import CURVES, main, workspace
from sparsity_lab.config import from_hydra
from sparsity_lab.core import metrics
from sparsity_lab.core.errors import UserError
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper, register_sweeps

register_sweeps()
register_sweeper()
AGENTS = sorted((folder_of("sweeps") / "wandb").glob("*.yaml"))


@pytest.mark.filterwarnings("ignore")  # of the packages that are tried here
@pytest.mark.parametrize("sweep", [None, "width_l0"])
def test_the_workspace_is_one_that_wandb_accepts(sweep: str | None) -> None:
    pytest.importorskip("wandb_workspaces")
    built = workspace("me/p", sweep)
    text = built._to_model().model_dump_json()  # what `save` sends, validated by W&B's schema
    for metric in (*CURVES, metrics.GEOMEAN_EDGES, metrics.GEOMEAN_NODES, metrics.TASKS_SOLVED):
        assert metric.name in text
    for name in ("Frontier", "Training", "Tasks", "Circuit sizes", "Failures", "plots/sweep"):
        assert name in text
    assert ("width_l0" in text) == (sweep is not None)


@pytest.mark.filterwarnings("ignore")
def test_a_project_that_is_none_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(UserError, match="p: expected ENTITY/PROJECT"):
        workspace("p")
    assert main(["p"]) == 1
    assert capsys.readouterr().err == "error: p: expected ENTITY/PROJECT\n"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
def test_the_sweeps_for_agents_are_valid_and_so_is_every_value_in_them(path: Path) -> None:
    config = pytest.importorskip("sweeps.config.cfg")
    sweep = yaml.safe_load(path.read_text())
    assert config.schema_violations_from_proposed_config(sweep) == []
    command = sweep["command"]
    assert command[:4] == ["${env}", "${interpreter}", "-m", "sparsity_lab.run"]
    fixed = [part for part in command[4:] if not part.startswith("${")]
    assert not any(part.startswith("+sweep") for part in fixed)  # an agent runs one job, without -m
    for end in ("first", "last"):
        chosen = []
        for key, value in sweep["parameters"].items():
            values = value.get("values") or [value["min"], value["max"]]
            chosen.append(f"{key}={values[0] if end == 'first' else values[-1]}")
        with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
            assert from_hydra(compose("config", fixed + chosen)).sweep_name == path.stem
    assert sweep["metric"]["name"] in {metric.name for metric in metrics.SUMMARY}


def test_there_are_sweeps_for_agents() -> None:
    assert AGENTS
