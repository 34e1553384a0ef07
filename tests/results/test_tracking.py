"""Tracking writes metrics.csv always, mirrors offline without key or network, and keeps secrets out (S11)."""

import csv
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.evidence.record import Check, Measured
from sparsity_lab.results import tracking
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.metrics_log import COLUMNS, MetricsLog
from sparsity_lab.results.record import CurvePoint, RunRecord, TaskResult, write_record
from sparsity_lab.results.remote import read_wandb
from sparsity_lab.results.tracking import track
from tests.analysis.made_up import empty_record

SECRET = "0123456789abcdef" * 2 + "deadbeef"  # as long as a real key
SCORES = Scores(raw_loss=0.3, selection_loss=0.1, accuracy=0.9)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", _closed_address())


def _closed_address() -> str:
    with socket.socket() as probe:  # a port that was free a moment ago: connecting is refused at once
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


LOSS = Measured(name="loss without it", value=0.75, unit="nats")
CHECK = Check(name="necessity", verdict="for", values=(LOSS,), sentence="It breaks.", rule="for: 0.7 nats")


def _record(name: str = "a") -> RunRecord:
    point = CurvePoint(target=0.15, nodes=3, edges=4, select=SCORES, test=SCORES)
    tasks = (
        TaskResult(
            task="t",
            status="circuit",
            reason="",
            unpruned=SCORES,
            curve=(point,),
            circuit="circuits/t.json",
            evidence=(CHECK,),
        ),
        TaskResult(task="u", status="not_learned", reason="Loss 2.", unpruned=SCORES, curve=(), circuit=None),
    )
    return empty_record(
        name,
        sweep="s",
        config={"model": {"d_model": 8}},
        config_hash="abc",
        metrics={"validation/loss": 1.5},
        tasks=tasks,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _mirror_one_run(folder: Path, config: LoggerConfig) -> None:
    record = _record(folder.name)
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(b"weights")
    circuits = [
        folder / task / "circuit-0.15.json" for task in ("with_as", "with_open")
    ]  # one name, two tasks
    for circuit in circuits:
        circuit.parent.mkdir()
        circuit.write_text("{}")
    with track(config, folder, name=record.name, group="s", settings=record.config) as tracker:
        for step in (1, 2):
            tracker.loggers()[0].log_metrics({"train/loss": 3.0 / step, "tokens": 128.0 * step}, step)
        write_record(record, folder)
        tracker.log_record(record, model=model, circuits=circuits)


@pytest.mark.parametrize("key", [None, SECRET], ids=["no key", "key, no network"])
def test_auto_is_offline_within_the_run_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    key: str | None,
) -> None:
    monkeypatch.setattr(tracking, "INIT_TIMEOUT", 2.0)
    wandb.teardown()  # so that this is W&B's first use
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "a"
    with caplog.at_level(logging.INFO):
        _mirror_one_run(folder, LoggerConfig(kind="wandb"))

    (local,) = (folder / "wandb").glob("offline-run-*")
    assert list(local.glob("run-*.wandb"))
    assert f"wandb sync {local}" in caplog.text
    assert ("W&B cannot be reached" if key else "no key") in caplog.text
    assert (local / "files" / "record.json").exists()
    (table,) = (local / "files" / "media" / "table").glob("evidence*.json")
    told = ["t", "necessity", "for", "loss without it 0.75 nats", "It breaks.", "for: 0.7 nats"]
    assert json.loads(table.read_text())["data"] == [told]
    assert "did not take" not in caplog.text
    assert wandb.run is None
    assert "WANDB_DATA_DIR" not in os.environ
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]
    assert outside == []
    for path in folder.rglob("*"):  # S11
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in caplog.text
    assert capfd.readouterr() == ("", "")  # W&B leaves the talking to us


def test_wandb_takes_circuits_of_the_same_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _mirror_one_run(tmp_path / "run", LoggerConfig(kind="wandb", mode="offline"))
    assert "did not take" not in caplog.text


def test_runs_of_one_process_do_not_mix(tmp_path: Path) -> None:
    config = LoggerConfig(kind="wandb", mode="offline")
    ids = []

    def run(name: str, fail: bool = False) -> None:
        with track(config, tmp_path / name, name=name) as tracker:
            ids.append(tracker.loggers()[0].experiment.id)
            if fail:
                raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run("a", fail=True)
    assert wandb.run is None
    run("b")
    run("a")
    assert ids[0] == ids[2] != ids[1]


def test_online_without_a_key_is_one_clear_line(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"^logger\.mode: 'online': no key .*auto, offline"),
        track(LoggerConfig(kind="wandb", mode="online"), tmp_path, name="a"),
    ):
        pass


def test_online_without_a_server_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "INIT_TIMEOUT", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    wandb.teardown()
    with (
        pytest.raises(UserError, match=r"^logger\.mode: 'online': W&B cannot be reached .*: auto, offline$"),
        track(LoggerConfig(kind="wandb", mode="online"), tmp_path, name="a"),
    ):
        pass


@pytest.mark.parametrize(
    "config", [LoggerConfig(kind="csv"), LoggerConfig(kind="wandb", mode="disabled")], ids=["csv", "disabled"]
)
def test_without_wandb_only_the_runs_own_files_are_written(tmp_path: Path, config: LoggerConfig) -> None:
    folder = tmp_path / "a"
    _mirror_one_run(folder, config)
    assert not (folder / "wandb").exists()
    assert [row["step"] for row in _rows(folder / "metrics.csv")] == ["1", "2"]


def test_no_field_takes_a_key() -> None:
    with pytest.raises(UserError, match="api_key: unknown key"):
        validate(LoggerConfig, {"kind": "wandb", "api_key": SECRET}, "logger")


def test_a_project_name_wandb_would_refuse_is_refused_at_the_door() -> None:
    with pytest.raises(UserError, match=r"logger\.project: 'a/b'"):
        validate(LoggerConfig, {"project": "a/b"}, "logger")


def test_metrics_csv_has_the_projects_columns_in_order(tmp_path: Path) -> None:
    MetricsLog(tmp_path).log_metrics({"train/loss": 0.1, "epoch": 0}, 5)
    header, row = (tmp_path / "metrics.csv").read_text().splitlines()
    assert tuple(header.split(",")) == COLUMNS
    assert row.split(",")[:3] == ["5", "", "0.1"]


def test_a_name_that_is_not_in_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train/los"):
        MetricsLog(tmp_path).log_metrics({"train/los": 0.1}, 5)


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def steps(log: MetricsLog, first: int, last: int) -> None:
        for step in range(first, last):
            log.log_metrics({"train/loss": 1 / step}, step)

    steps(MetricsLog(tmp_path / "whole"), 1, 9)
    steps(MetricsLog(tmp_path / "resumed"), 1, 6)
    steps(MetricsLog(tmp_path / "resumed"), 4, 9)  # the last checkpoint was written after step 3
    assert (tmp_path / "resumed/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


class _Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = (self.weight * batch).sum()
        self.log_dict({"train/loss": loss, "tokens": 4.0 * (index + 1)})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
def test_lightning_logs_through_it(tmp_path: Path) -> None:
    with track(LoggerConfig(), tmp_path, name="a") as tracker:
        trainer = Trainer(
            max_steps=2,
            logger=tracker.loggers(),
            log_every_n_steps=1,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(_Module(), DataLoader(torch.ones(2, 1)))  # type: ignore[arg-type]
    rows = _rows(tmp_path / "metrics.csv")
    assert [float(row["train/loss"]) for row in rows] == pytest.approx([1.0, 0.9])
    assert [float(row["tokens"]) for row in rows] == [4.0, 8.0]


class _File:
    def __init__(self, text: str) -> None:
        self.text = text

    def download(self, root: str, replace: bool) -> Any:
        path = Path(root) / "record.json"
        path.write_text(self.text)
        return path.open()


class _Run:
    def __init__(self, text: str | None) -> None:
        self.id = "r1"
        self._text = text

    def files(self, names: list[str]) -> list[_File]:
        assert names == ["record.json"]
        return [] if self._text is None else [_File(self._text)]


class _Api:
    def __init__(self, *texts: str | None) -> None:
        self._texts = texts

    def runs(self, project: str, order: str) -> list[_Run]:
        if project != "me/sparsity-lab":
            raise ValueError("Could not find project")
        return [_Run(text) for text in self._texts]


def test_a_wandb_project_gives_the_records_of_its_runs(caplog: pytest.LogCaptureFixture) -> None:
    records = [_record("a"), _record("b")]
    api = _Api(records[0].model_dump_json(), None, '{"schema_version": 1}', records[1].model_dump_json())
    assert read_wandb("me/sparsity-lab", api) == records
    assert "r1: record.json.name: missing" in caplog.text


def test_an_unknown_wandb_project_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"^wandb=me/nothing: not readable .*ENTITY/PROJECT$"):
        read_wandb("me/nothing", _Api())
