"""The benchmark of circuits; `test_smoke` runs it on a finished run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import circuits as bench
from sparsity_lab.circuits.circuit import Circuit, PrunedTokens, Scores
from sparsity_lab.circuits.evaluator import IDENTITY
from sparsity_lab.core.errors import UserError
from sparsity_lab.results.record import CurvePoint, TaskResult
from tests.test_cost import config_of


def test_a_folder_without_a_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_change_is_one_value_or_a_whole_section() -> None:
    config = config_of("finder.steps=7")
    assert bench.changed(config, "pruning.closed=false").pruning.closed is False
    assert bench.changed(config, "finder.start=noise").finder.model_dump()["steps"] == 7
    other = bench.changed(config, "finder={kind: attribution, steps: 3}")
    assert other.finder.model_dump()["steps"] == 3
    assert config.evidence.enabled
    assert bench.changed(config, "pruning.freeze_norm=true").pruning.freeze_norm  # no evidence is made here
    assert other.model == config.model


def test_a_plus_sign_joins_changes() -> None:
    joined = bench.changed(
        config_of(), "pruning.ablation=zero+finder.learning_rate=1.0e+0+pruning.nested=true"
    )
    assert (joined.pruning.ablation, joined.pruning.nested) == ("zero", True)
    assert joined.finder.model_dump()["learning_rate"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pruning.closed", "allowed: KEY=VALUE, where KEY begins with finder or pruning"),
        ("model.d_model=3", "allowed: KEY=VALUE, where KEY begins with finder or pruning"),
        ("pruning.clsed=true", "pruning.clsed: unknown key"),
        ("finder={", "not readable as YAML"),
        ("finder=gradient", "finder"),
    ],
)
def test_a_wrong_change_is_one_line(change: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        bench.changed(config_of(), change)
    assert "\n" not in str(caught.value)


def test_settings_are_compared_on_the_tasks_that_all_of_them_solve() -> None:
    def row(task: str, setting: str, edges: int | str) -> dict[str, object]:
        row = {"task": task, "setting": setting, "target": 0.15, "nodes": edges, "edges": edges}
        return row | dict.fromkeys(("test_loss", "edges_only_loss", "seconds"), 0.5)

    rows = [row("a", "own", 4), row("a", "x=1", 16), row("b", "own", 2), row("b", "x=1", "")]
    own, other = bench.means(rows)
    assert own.startswith("own, 0.15 nats: 1 tasks; geometric means 4.0 nodes, 4.0 edges")
    assert other.startswith("x=1, 0.15 nats: 1 tasks; geometric means 16.0 nodes, 16.0 edges")


def test_a_search_has_a_row_for_each_absolute_target(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores(raw_loss=0.14, selection_loss=0.14, accuracy=1.0)
    tokens = PrunedTokens(tokens=(3, 8), calibration=IDENTITY, select=scores, test=scores)
    circuit = Circuit(
        task="a",
        model="m",
        nodes=(),
        edges=(),
        provenance={},
        target=0.15,
        calibration=IDENTITY,
        select=scores,
        test=scores,
        tokens=tokens,
    )
    point = CurvePoint(target=0.15, nodes=9, edges=7, select=scores, test=scores, edges_only=scores)
    result = TaskResult(
        task="a", status="circuit", reason="", unpruned=None, curve=(point,), circuit=None, retries=1
    )
    monkeypatch.setattr(bench, "explain_task", lambda *_: (result, [circuit]))
    run: Any = SimpleNamespace(tokenizer=None, model=None, means_n=None, stages={"model": "m"})
    config = config_of("pruning.targets=[0.075]", "pruning.target=0.15")
    missed, met = bench._measure("own", config, run, "a", run)
    assert [missed[key] for key in ("target", "nodes", "edges", "tokens")] == [0.075, "", "", ""]
    assert [met[key] for key in ("nodes", "edges", "tokens", "tokens_loss", "searches")] == [9, 7, 2, 0.14, 2]
    assert tuple(met) == tuple(missed) == bench.COLUMNS
