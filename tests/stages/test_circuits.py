"""A task whose circuit is out of line with the model's others is searched again, in a folder of its own."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from sparsity_lab.circuits.circuit import Calibration, Circuit, Node, Scores
from sparsity_lab.circuits.standalone import MEANS, PAIRS, references
from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.run_folder import RESULT
from sparsity_lab.results.record import CurvePoint, TaskResult
from sparsity_lab.stages import circuits as stage
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper

NAMES = ["else_elif", "for_while", "if_equals", "lambda_func", "var_if", "final_kwarg"]
SCORES = Scores(raw_loss=0.14, selection_loss=0.14, accuracy=1.0)
register_sweeper()


def config_of(*overrides: str) -> RunConfig:
    few = [f"tasks.n_{split}_pairs=2" for split in ("train", "select", "test")]
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", [f"tasks.names=[{','.join(NAMES)}]", *few, *overrides]))


def explained(nodes: int, name: str, earlier: Sequence[Circuit]) -> tuple[TaskResult, list[Circuit]]:
    """What `explain_task` returns for a circuit of so many nodes; a further search finds a tenth of them."""
    if earlier:
        nodes = len(earlier[0].nodes) // 10
    point = CurvePoint(target=0.15, nodes=nodes, edges=nodes, select=SCORES, test=SCORES, edges_only=SCORES)
    circuit = Circuit(
        task=name,
        model="m",
        target=0.15,
        nodes=tuple(Node(layer=0, site="attn_in", channel=channel) for channel in range(nodes)),
        edges=(),
        calibration=Calibration(scale=1.0, shift=0.0),
        select=SCORES,
        test=SCORES,
        provenance={},
    )
    found = TaskResult(
        task=name,
        status="circuit",
        reason="",
        unpruned=SCORES,
        curve=(point,),
        circuit="c.json",
        retries=3 if earlier else 0,
        retried_because="far more nodes than the model's circuits for other tasks" if earlier else "",
    )
    return found, [circuit]


@pytest.mark.parametrize("retries", [2, 0])
def test_an_outlier_is_searched_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[str, int]] = []

    def explain(config: Any, name: str, *rest: Any) -> tuple[TaskResult, list[Circuit]]:
        calls.append((name, len(rest[-1])))
        return explained(1275 if name == "final_kwarg" else 50, name, rest[-1])

    monkeypatch.setattr(stage, "explain_task", explain)
    monkeypatch.setattr(stage, "_write_beside", lambda *_: {})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # no other process, where nothing is patched
    context: Any = SimpleNamespace(
        inputs={"model": "m"},
        root=tmp_path,
        load=lambda: None,
        tokenizer=None,
        model=None,
        means_n=None,
        name="m",
    )
    (tmp_path / "circuits").mkdir()
    config = config_of(f"pruning.retries={retries}")
    caplog.set_level("INFO")
    folders = stage.task_circuits(config, context)
    once = [(name, 0) for name in NAMES]
    assert calls == once + ([("final_kwarg", 1)] if retries else [])
    results = {
        task: validate(TaskResult, read_json(path / RESULT), str(path)) for task, path in folders.items()
    }
    assert list(results) == NAMES
    sizes = {task: result.curve[0].nodes for task, result in results.items()}
    assert sizes == dict.fromkeys(NAMES, 50) | {"final_kwarg": 127 if retries else 1275}
    assert results["final_kwarg"].retries == (3 if retries else 0)
    assert ("searched 4 times (far more nodes" in caplog.text) is bool(retries)
    calls.clear()
    assert stage.task_circuits(config, context) == folders
    assert not calls


@pytest.mark.parametrize("change", ["pruning.freeze_norm=true", "pruning.ablation=other_prompt"])
def test_evidence_is_refused_for_circuits_that_need_the_whole_models_run(change: str) -> None:
    with pytest.raises(UserError, match=r"evidence cannot run .*allowed: evidence=none") as error:
        config_of(change)
    assert "\n" not in str(error.value)
    assert config_of(change, "evidence=none").pruning.needs_whole_run
    assert not config_of().pruning.needs_whole_run


def test_values_that_differ_between_prompts_are_in_no_file(tmp_path: Path) -> None:
    """A circuit of `other_prompt` names its pairs alone."""
    (tmp_path / PAIRS).write_bytes(b"pairs")
    assert set(references(tmp_path)) == {"pairs"}
    (tmp_path / MEANS).write_bytes(b"means")
    assert set(references(tmp_path)) == {"pairs", "frozen"}
