"""The comparison of the ways from a dense model to a sparse one."""

from pathlib import Path

import pandas as pd
import pytest
from made_up import record

from analysis import plot_dense_to_sparse
from sparsity_lab.results.record import RunRecord, write_record

SWEEP = "dense_to_sparse"


def made(way: str, loss: float, kl: float, edges: dict[str, int]) -> RunRecord:
    kind = "sparse" if way == "scratch" else way
    plain = record(kind, {"sparsified": 64}.get(way, 256), 60_000, loss, edges, sweep=SWEEP)
    more = {"bridge/hybrid_excess": 0.1} if way == "bridged" else {}
    metrics = plain.metrics | {"reference/loss": 1.9, "reference/kl": kl} | more
    changes = {"metrics": metrics, "config_hash": way, "name": way}
    return plain.model_copy(update=changes)


RECORDS = [
    made("scratch", 2.0, 0.5, {"a": 10, "b": 40}),
    made("bridged", 2.05, 0.2, {"a": 20, "b": 20, "c": 5}),
    made("sparsified", 2.1, 0.1, {"a": 9, "b": 100}),
]


def test_the_ways_share_tasks_and_are_told_apart() -> None:
    found, tasks = plot_dense_to_sparse.ways(RECORDS, 0.15)
    assert tasks == ["a", "b"]
    assert [(way.way, way.edges, way.dense_kl) for way in found] == [
        ("scratch", pytest.approx(20), 0.5),
        ("sparsified", pytest.approx(30), 0.1),
        ("bridged", pytest.approx(20), 0.2),
    ]
    assert [way.hybrid_excess for way in found] == [None, None, 0.1]


def test_it_writes_table_and_picture(tmp_path: Path) -> None:
    for one in [*RECORDS, record("sparse", 32, 99, 2.0, {"z": 1}, sweep="another")]:
        write_record(one, tmp_path / str(one.sweep) / one.name)
    assert plot_dense_to_sparse.main([str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / SWEEP / "dense_to_sparse.csv")
    assert list(table["way"]) == ["scratch", "sparsified", "bridged"]
    assert "the dense model" in (tmp_path / SWEEP / "dense_to_sparse.svg").read_text()


def test_runs_without_a_dense_model_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record("sparse", 32, 99, 2.0, {"z": 1}, sweep=SWEEP), tmp_path / "one")
    assert plot_dense_to_sparse.main([str(tmp_path)]) == 1
    assert "0 runs with a reference model" in capsys.readouterr().err
