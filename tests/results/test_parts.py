"""The parts of a run below wandb/: the last is whole, a finished run opens no other, a copy is complete."""

import json
import logging
import os
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.connection import choose_mode
from sparsity_lab.results.logger import LoggerConfig
from sparsity_lab.results.record import RunRecord, write_record
from sparsity_lab.results.tracking import Tracker, track
from tests.analysis.made_up import empty_record

CONFIG = LoggerConfig(kind="wandb", mode="offline")
BLOCK, HEADER = 32768, 7  # of W&B's log of a run, a LevelDB log


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def history(part: Path) -> list[dict[str, Any]]:
    """The rows that a part of an offline run holds."""
    (path,) = part.glob("*.wandb")
    data, at, rows, whole = path.read_bytes(), HEADER, [], b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # too short for a record: padding
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + HEADER])
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record: Any = vars(wandb_internal_pb2)["Record"]()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                row = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
                rows.append(row)
    return rows


def curve(part: Path) -> list[tuple[int, float]]:
    return [(int(row["step"]), row["train/loss"]) for row in history(part) if "train/loss" in row]


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_ctime_ns)


def run(folder: Path, first: int, last: int, stop: bool = False, record: RunRecord | None = None) -> None:
    """One command: training from step `first` to `last` in a folder of its own, as stages do."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    with track(CONFIG, folder, name="a") as tracker:
        if last >= first:
            (log,) = tracker.loggers(model)
            for step in range(first, last + 1):
                log.log_metrics({"train/loss": 1.0 / step}, step)
        if stop:
            raise KeyboardInterrupt
        shutil.copyfile(model / "metrics.csv", folder / "metrics.csv")
        tracker.replay(folder / "metrics.csv")
        record = record or empty_record("a")
        write_record(record, folder)
        tracker.log_record(record, model=model)


def test_the_last_part_of_an_interrupted_run_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = [(step, 1.0 / step) for step in range(1, 8)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 1, 5, stop=True)
    with caplog.at_level(logging.INFO):
        run(tmp_path, 4, 7)  # the last checkpoint was written after step 3
    first, second = parts(tmp_path)
    assert curve(first) == whole[:5]
    assert curve(second) == whole
    assert f"wandb sync {second} (it holds the whole run; leave out the earlier parts)" in caplog.text


def test_a_run_that_was_interrupted_after_its_training_is_whole_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 1, 5, stop=True)
    run(tmp_path, 6, 5)  # nothing is left to train
    assert curve(parts(tmp_path)[1]) == [(step, 1.0 / step) for step in range(1, 6)]


def test_a_finished_run_opens_no_further_part_unless_its_record_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, 1, 5)
    with caplog.at_level(logging.INFO):
        run(tmp_path, 6, 5)
        run(tmp_path, 6, 5, record=empty_record("a", git_commit="another"))
        run(tmp_path, 6, 5, record=empty_record("a", overrides=("logger=wandb",)))
    assert len(parts(tmp_path)) == 1
    assert "wandb sync" not in caplog.text
    run(tmp_path, 6, 5, record=empty_record("a", metrics={"validation/loss": 1.5}))
    first, second = parts(tmp_path)
    assert curve(second) == curve(first)


def test_a_copied_folder_of_runs_needs_nothing_from_the_first(tmp_path: Path) -> None:
    original, copied = tmp_path / "first" / "run", tmp_path / "second" / "run"
    run(original, 1, 5)
    shutil.copytree(original, copied, symlinks=True)
    (part,) = parts(original)
    assert (part / "files" / "record.json").read_bytes() == (original / "record.json").read_bytes()
    shutil.rmtree(original)
    for path in copied.rglob("*"):
        assert path.exists(), f"{path} leads to {os.readlink(path)}"
        assert not path.is_symlink() or not os.path.isabs(os.readlink(path)), path


class Online:
    """A W&B run that goes on where the server is."""

    offline = False

    def __init__(self, starting_step: int) -> None:
        self.starting_step, self.rows = starting_step, list[dict[str, Any]]()

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


@pytest.mark.parametrize("known", [0, 2, 5])
def test_online_the_server_gets_no_row_twice(tmp_path: Path, known: int) -> None:
    run = Online(known)
    log = Tracker(tmp_path).loggers()[0]
    for step in range(1, 6):
        log.log_metrics({"train/loss": 1.0 / step}, step)
    tracker = Tracker(tmp_path, lambda: run)
    (resumed,) = tracker.loggers()
    for step in range(4, 8):  # from the checkpoint after step 3
        resumed.log_metrics({"train/loss": 1.0 / step}, step)
    tracker.replay(tmp_path / "metrics.csv")
    assert [row["step"] for row in run.rows] == list(range(known + 1, 8))


def test_what_an_offline_run_holds_is_sent_once_there_is_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 1, 5)
    server = Online(0)
    server.__dict__ |= {"dir": str(tmp_path / "x" / "files"), "finish": lambda exit_code: None}
    monkeypatch.setattr("sparsity_lab.results.tracking._start", lambda *arguments: server)
    monkeypatch.setattr("sparsity_lab.results.tracking.mirror_record", lambda *arguments: None)
    monkeypatch.setattr("sparsity_lab.results.tracking.mirror_artifacts", lambda *arguments: None)
    monkeypatch.setattr("sparsity_lab.results.tracking.choose_mode", lambda config: "online")
    run(tmp_path, 6, 5)
    assert [row["step"] for row in server.rows] == [1, 2, 3, 4, 5]
    server.rows.clear()
    run(tmp_path, 6, 5)
    assert server.rows == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tags": ["A" * 65]}, r"^logger.tags.0: '.*': a tag has 1 to 64 printable characters$"),
        ({"tags": ["a", ""]}, r"^logger.tags.1: '': a tag has 1 to 64"),
        ({"tags": [" "]}, r"^logger.tags.0: ' ': a tag has 1 to 64"),
        ({"tags": ["a\nb"]}, r"^logger.tags.0: 'a\\nb': a tag has 1 to 64"),
        (
            {"entity": "my team/x"},
            r"^logger.entity: 'my team/x': an entity's name has 1 to 128 letters, digits",
        ),
        ({"entity": ""}, r"^logger.entity: '': an entity's name"),
        ({"project": "a/b"}, r"^logger.project: 'a/b': a project's name has 1 to 128 printable"),
        ({"project": " "}, r"^logger.project: ' ': a project's name"),
    ],
)
def test_a_name_that_wandb_refuses_is_refused_at_the_door(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(LoggerConfig, values, "logger")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WANDB_TAGS", "B" * 70, "a tag has 1 to 64 printable characters"),
        ("WANDB_TAGS", "a,,b", "a tag has 1 to 64 printable characters"),
        ("WANDB_ENTITY", "my team/x", "an entity's name has 1 to 128 letters, digits, - and _"),
    ],
)
def test_a_variable_that_wandb_refuses_is_named(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        choose_mode(CONFIG)
    assert str(caught.value) == f"{variable}: {value!r}: {message}"
    given = LoggerConfig(kind="wandb", mode="offline", entity="me", tags=("a",))
    assert choose_mode(given) == "offline"  # the config's own values count
    assert choose_mode(LoggerConfig(kind="csv")) == "disabled"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("WANDB_INIT_TIMEOUT", "soon"), ("WANDB_BASE_URL", "nowhere at all"), ("WANDB_API_KEY", "secret ")],
)
def test_any_other_variable_that_wandb_refuses_is_named(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"^{variable}: W&B refuses it: ") as caught:
        choose_mode(CONFIG)
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_wandb_does_not_see_a_variable_that_the_config_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would refuse the variable, although it takes the tags that it is given."""
    monkeypatch.setenv("WANDB_TAGS", "B" * 70)
    with track(CONFIG.model_copy(update={"tags": ("a",)}), tmp_path, name="a"):
        assert os.environ["WANDB_TAGS"] == "B" * 70
    assert len(parts(tmp_path)) == 1


def test_any_error_of_wandb_at_the_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: Any) -> SimpleNamespace:
        raise TypeError("nothing\nthat W&B calls its own")

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setenv("WANDB_NOTES", "x")
    with (
        pytest.raises(
            UserError, match=r"^logger: W&B refuses .*WANDB_NOTES.*: TypeError: nothing that W&B calls"
        ),
        track(CONFIG, tmp_path, name="a"),
    ):
        pass
