"""W&B both ways, against a stand-in for its server: what is sent, what is read back, a lost server."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from stand_in import ENTITY, Project, stand_in

from analysis.plot_frontier import main as plot_frontier
from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.results import mirror as mirror_module
from sparsity_lab.results import tracking
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.record import CurvePoint, RunRecord, TaskResult, write_record
from sparsity_lab.results.remote import read_wandb
from sparsity_lab.results.tracking import track
from tests.analysis.made_up import empty_record, shape

CONFIG = LoggerConfig(kind="wandb", project="p", entity=ENTITY)
SCORES = Scores(raw_loss=0.3, selection_loss=0.1, accuracy=0.9)


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    wandb.teardown()  # what an earlier test said of the server counts no more
    yield
    wandb.teardown()


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with stand_in() as (found, _):
        monkeypatch.setenv("WANDB_BASE_URL", found.url)
        yield found


def made_up(kind: str, d_model: int, loss: float, edges: int) -> RunRecord:
    curve = tuple(
        CurvePoint(target=t, nodes=3, edges=e, select=SCORES, test=SCORES)
        for t, e in ((0.15, edges), (0.5, edges // 2))
    )
    task = TaskResult(task="t", status="circuit", reason="", unpruned=SCORES, curve=curve, circuit="c.json")
    name = f"{kind}-{d_model}"
    measured = {"validation/loss": loss, "model/weights": 9000, "model/nonzeros": 900}
    return empty_record(name, sweep="s", kind=kind, model=shape(d_model), metrics=measured, tasks=(task,))


def mirror(folder: Path, record: RunRecord, config: LoggerConfig = CONFIG) -> None:
    """What the pipeline does with a run, without the training."""
    tokens, model, circuit = folder / "bpe-1", folder / "model-1", folder / "t" / "circuit-0.15.json"
    for path in (tokens / "meta.json", model / "model.safetensors", circuit):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    with track(config, folder, name=record.name, group="s", settings=record.config) as tracker:
        for step in (1, 2):
            tracker.loggers()[0].log_metrics({"train/loss": 3.0 / step}, step)
        write_record(record, folder)
        tracker.log_record(record, corpus=tokens, model=model, circuits=[circuit])


def test_a_run_is_sent_and_read_back(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    record = made_up("sparse", 64, 1.8, 20)
    mirror(tmp_path / "a", record)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "sparsity" in r.name]
    assert project.unknown == []

    ((run, sent),) = project.runs.items()
    assert (sent["displayName"], sent["groupName"]) == (record.name, "s")
    losses = [row["train/loss"] for row in project.history[run] if "train/loss" in row]
    assert losses == [3.0, 1.5]
    assert {"tasks", "circuit_sizes_table", "validation/loss"} <= project.summary[run].keys()
    assert project.exit_codes[run] == 0
    assert set(project.files[run]) >= {"record.json"}

    kinds = {name: made["artifactTypeName"] for name, made in project.artifacts.items()}
    assert {kinds["bpe-1"], kinds["model-1"], kinds[f"circuits-{run}"]} == {"corpus", "model", "circuits"}
    origin = json.loads(project.artifacts[f"circuits-{run}"]["metadata"])["made from"]
    assert origin == {"corpus": "bpe-1", "model": "model-1"}
    assert project.used == [(run, "bpe-1"), (run, "model-1")]  # corpus → model → circuits

    assert read_wandb(f"{ENTITY}/p") == [record]
    mirror(tmp_path / "b", made_up("dense", 32, 1.9, 200))
    assert plot_frontier([f"wandb={ENTITY}/p", "--out", str(tmp_path / "out")]) == 0
    assert "2 models; 1 tasks learned by all" in capsys.readouterr().out
    assert (tmp_path / "out" / "frontier.png").exists()


@pytest.mark.slow
def test_a_server_lost_in_mid_run_costs_the_mirror_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "FINISH_TIMEOUT", 3.0)
    monkeypatch.setattr(mirror_module, "ARTIFACT_TIMEOUT", 1)
    with stand_in() as (project, server):
        monkeypatch.setenv("WANDB_BASE_URL", project.url)
        with track(CONFIG, tmp_path, name="a") as tracker:
            tracker.loggers()[0].log_metrics({"train/loss": 3.0}, 1)
            server.shutdown()
            server.server_close()
            tracker.loggers()[0].log_metrics({"train/loss": 2.0}, 2)
            write_record(made_up("sparse", 64, 1.8, 20), tmp_path)
            tracker.log_record(made_up("sparse", 64, 1.8, 20), model=tmp_path / "record.json")
            began = time.monotonic()
    assert time.monotonic() - began < 60
    assert "wandb sync" in caplog.text
    assert (tmp_path / "record.json").exists()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
    assert list(tmp_path.glob("wandb/run-*/run-*.wandb"))  # what there is to sync


def test_a_server_that_takes_calls_and_says_nothing_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "INIT_TIMEOUT", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.INFO):
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        mirror(tmp_path / "a", made_up("sparse", 64, 1.8, 20))
    assert "W&B cannot be reached (" in caplog.text
    assert list(tmp_path.glob("a/wandb/offline-run-*/*.wandb"))


def test_an_offline_run_can_be_read_by_wandbs_own_reader(tmp_path: Path) -> None:
    record = made_up("sparse", 64, 1.8, 20)
    mirror(tmp_path / "a", record, CONFIG.model_copy(update={"mode": "offline"}))
    (local,) = tmp_path.glob("a/wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(local)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for expected in (record.name, "validation/loss", "circuit_sizes"):
        assert expected in done.stdout
