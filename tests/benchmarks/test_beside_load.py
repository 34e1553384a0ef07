"""The benchmark beside load: each policy in its environment, busy processes only while they are needed."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks import beside_load, training
from sparsity_lab.core.processors import WAIT_VARIABLES


def test_a_policy_replaces_every_wait_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAIT_VARIABLES:
        monkeypatch.setenv(name, "1")
    for policy, values in beside_load.POLICIES.items():
        environment = beside_load.environment(policy)
        assert {name: environment[name] for name in WAIT_VARIABLES if name in environment} == values
        assert environment["PATH"]


def test_busy_processes_run_until_the_block_ends() -> None:
    with beside_load.busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert all(process.returncode for process in processes)


def test_each_cell_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(training, "VOCABULARY", 32)
    monkeypatch.setattr(training, "NONZEROS", 900)
    monkeypatch.setattr("sparsity_lab.kernels.machine.prepare_processor", lambda threads: None)
    beside_load.print_speeds([(16, "dense", 0), (16, "sparse", 1)], threads=1, seconds=0)
    speeds = json.loads(capsys.readouterr().out)
    assert len(speeds) == 2
    assert all(speed > 0 for speed in speeds)


def test_the_table_has_the_median_and_the_extremes(tmp_path: Path) -> None:
    beside_load.write({"passive": {(64, "dense", 1): [3.0, 1.0, 7.0]}}, tmp_path)
    with (tmp_path / "beside.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        **{"policy": "passive", "d_model": "64", "kind": "dense", "busy": "1"},
        **{"tokens_per_second": "3", "lowest": "1", "highest": "7"},
    }
