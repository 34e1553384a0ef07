"""S10: a record read back equals the record written; a newer schema reads older records."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab.circuits.circuit import Scores
from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.renamed import renamed_in_config
from sparsity_lab.evidence.record import Check, Measured
from sparsity_lab.results import record as module
from sparsity_lab.results.frames import _rows, to_frame
from sparsity_lab.results.provenance import environment
from sparsity_lab.results.record import (
    CurvePoint,
    ModelSummary,
    PruningSummary,
    Replaced,
    RunRecord,
    Snapshot,
    TaskResult,
    read_record,
    write_record,
)
from sparsity_lab.results.runs import read_all
from sparsity_lab.results.summary import geometric_mean, learned, summarise
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper

register_sweeper()
GOOD = Scores(raw_loss=0.5, selection_loss=0.1, accuracy=0.875)
POOR = Scores(raw_loss=2.5, selection_loss=0.69, accuracy=0.5)


def make(name: str = "sparse-64", **changes: Any) -> RunRecord:
    curve = tuple(
        CurvePoint(target=target, nodes=nodes, edges=edges, select=GOOD, test=POOR)
        for target, nodes, edges in ((0.05, 20, 90), (0.15, 8, 12))
    )
    values: dict[str, Any] = {
        "name": name,
        "sweep": "width_l0",
        "kind": "sparse",
        "model": ModelSummary(d_model=64, n_layer=2, d_head=16, tokens=9000),
        "pruning": PruningSummary(finder="gradient", selection="raw", polish=True, target=0.15),
        "overrides": ("model.d_model=64",),
        "config": {
            "model": {"kind": "transformer", "d_model": 64, "n_layer": 2, "d_head": 16},
            "sparsity": {"kind": "sparse"},
            "trainer": {"tokens": 9000, "start": "scratch"},
            "pruning": {
                "method": "gradient",
                "selection": "raw",
                "polish": True,
                "target": 0.15,
                "targets": (0.05, 0.15),
                "relative_targets": (),
                "closed": False,
                "retries": 0,
            },
        },
        "config_hash": "0123456789ab",
        "git_commit": None,
        "git_dirty": None,
        "packages": {"torch": "2.13.0"},
        "python": "3.11.7",
        "seeds": {"train": 2**62 + 1},
        "stages": {"model": "model-abc"},
        "metrics": {
            "validation/loss": 0.1 + 0.2,
            "model/weights": 1000,
            "model/nonzeros": 100,
            "circuits/geomean_edges": math.pi,
        },
        "tasks": (
            TaskResult(
                task="with_open",
                status="circuit",
                reason="",
                unpruned=GOOD,
                curve=curve,
                circuit="circuits/with_open.json",
            ),
            TaskResult(
                task="var_swap",
                status="not_learned",
                reason="Unpruned loss 2.5 is above 0.15.",
                unpruned=POOR,
                curve=(),
                circuit=None,
            ),
            TaskResult(
                task="else_elif",
                status="not_askable",
                reason="' elif' is two tokens.",
                unpruned=None,
                curve=(),
                circuit=None,
            ),
        ),
    }
    return RunRecord(**(values | changes))


def test_s10_a_record_read_back_equals_the_record_written(tmp_path: Path) -> None:
    record = make(**environment())
    path = write_record(record, tmp_path / "run")
    assert path == tmp_path / "run" / "record.json"
    assert read_record(path) == record
    assert read_record(tmp_path / "run") == record


def test_a_folder_without_a_record_is_said_to_be_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not the folder of a finished run: it holds no record\.json"):
        read_record(tmp_path)


def test_s10_evidence_is_read_back(tmp_path: Path) -> None:
    loss = Measured(name="loss without the circuit", value=0.1 + 0.2, unit="nats")
    check = Check(
        name="necessity", verdict="for", values=(loss,), sentence="It breaks.", rule="for: 0.7 nats"
    )
    record = make()
    tasks = (record.tasks[0].model_copy(update={"evidence": (check,)}), *record.tasks[1:])
    record = record.model_copy(update={"tasks": tasks})
    path = write_record(record, tmp_path)
    assert read_record(tmp_path) == record
    plain = json.loads(path.read_text()) | {"schema_version": 6}  # when checks had no rules
    del plain["tasks"][0]["evidence"][0]["rule"]
    path.write_text(json.dumps(plain))
    old = read_record(tmp_path).tasks[0].evidence[0]
    assert old == check.model_copy(update={"rule": ""})


def test_s10_writing_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_record(make(), tmp_path / "a").read_bytes()
    assert write_record(read_record(tmp_path / "a"), tmp_path / "b").read_bytes() == first


def test_s10_a_newer_schema_reads_an_older_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As schemas 2 and 3 would: one that renamed `label` to `name`, one with nothing to add to old ones."""
    record = make()
    monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(
        module,
        "UPGRADES",
        {1: lambda old: {**_without(old, "label"), "name": old["label"]}, 2: lambda old: old},
    )
    old = _without(record.model_dump(mode="json"), "name") | {"label": "renamed", "schema_version": 1}
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert read_record(tmp_path) == record.model_copy(update={"name": "renamed", "schema_version": 3})


def test_s10_a_record_of_schema_1_has_neither_evidence_nor_formation(tmp_path: Path) -> None:
    plain = _of_schema_3(make()) | {"schema_version": 1}
    del plain["formation"]
    plain["tasks"] = [_without(task, "evidence") for task in plain["tasks"]]
    (tmp_path / "record.json").write_text(json.dumps(plain))
    assert read_record(tmp_path) == make()


def test_s10_a_record_of_schema_4_names_its_sweep_in_the_config(tmp_path: Path) -> None:
    record = make(config={"sweep_name": "mine", "seed": 0})
    old = _without(record.model_dump(mode="json"), "replaced") | {"schema_version": 4}
    old["config"] = {"sweep": "mine", "seed": 0}
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert read_record(tmp_path) == record


def test_s10_a_run_of_schema_4_has_the_settings_of_its_time(tmp_path: Path) -> None:
    """Circuits were open, the finder counted the retries, and the final loss had no windows of its own."""
    plain = make().model_dump(mode="json")
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        composed: Any = from_hydra(compose("config", ["reference=trained"])).model_dump(mode="json")
    pruning = {k: v for k, v in composed["pruning"].items() if k not in ("closed", "retries")}
    trainer = _without(composed["trainer"], "final_windows") | {"validation_windows": 32}
    reference = composed["reference"] | {"trainer": trainer}
    old = _without(composed, "sweep_name") | {"sweep": None, "reference": reference}
    old |= {"pruning": pruning, "finder": composed["finder"] | {"retries": 1}, "trainer": trainer}
    (tmp_path / "record.json").write_text(json.dumps(plain | {"config": old, "schema_version": 4}))
    read = read_record(tmp_path).config
    assert read["pruning"] == composed["pruning"] | {"closed": False, "retries": 1}
    assert read["trainer"]["final_windows"] == read["reference"]["trainer"]["final_windows"] == 32
    assert renamed_in_config(read) == []
    assert validate(RunConfig, read).pruning.retries == 1


def test_s10_a_record_of_schema_5_has_absolute_targets_alone(tmp_path: Path) -> None:
    record = make()
    old = record.model_dump(mode="json") | {"schema_version": 5}
    old["config"]["pruning"] = _without(old["config"]["pruning"], "relative_targets")
    for point in old["tasks"][0]["curve"]:
        del point["target_kind"], point["excess"]
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert read_record(tmp_path) == record


def test_s10_replaced_numbers_are_read_back(tmp_path: Path) -> None:
    fewer = Replaced(key="sparsity.nonzeros", asked=30_000, used=36_623, reason="at_least")
    record = make(replaced=(fewer,))
    write_record(record, tmp_path)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "sparse"),
        ({"sparsity": {"kind": "dense"}}, "dense"),
        ({"bridge": {"learning_rate": 0.01}}, "bridged"),
        ({"trainer": {"tokens": 9000, "start": "dense"}}, "sparsified"),
        ({"model": {"kind": "gpt2", "path": "there", "n_ctx": 128}}, "imported"),
    ],
)
def test_s10_kind_model_and_pruning_of_schema_3_are_read_from_its_config(
    tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    record = make(config=make().config | changes)
    (tmp_path / "record.json").write_text(json.dumps(_of_schema_3(record)))
    shape = record.model
    if kind == "imported":
        shape = ModelSummary(d_model=None, n_layer=None, d_head=None, tokens=None)
    assert read_record(tmp_path) == record.model_copy(update={"kind": kind, "model": shape})


def test_s10_a_record_from_before_methods_could_be_chosen_used_masks(tmp_path: Path) -> None:
    record = make(config=make().config | {"pruning": {"target": 0.2}})
    (tmp_path / "record.json").write_text(json.dumps(_of_schema_3(record)))
    expected = PruningSummary(finder="masks", selection="calibrated", polish=False, target=0.2)
    assert read_record(tmp_path).pruning == expected


def _of_schema_3(record: RunRecord) -> dict[str, Any]:
    """The record as schema 3 had it: other names, and no kind, model or pruning."""
    plain = _older_names(record.model_dump(mode="json")) | {"schema_version": 3}
    plain["formation"] = [
        _without(snapshot, "fraction") | {"at": snapshot["fraction"]} for snapshot in plain["snapshots"]
    ]
    gone = ("kind", "model", "pruning", "snapshots")
    return {key: value for key, value in plain.items() if key not in gone}


def _older_names(value: Any) -> Any:
    older = {"raw_loss": "loss", "selection_loss": "calibrated_loss"}
    if isinstance(value, dict):
        return {
            older.get(key, key.replace("reference/", "dense/")): _older_names(one)
            for key, one in value.items()
            if key != "pruned_edges"
        }
    return [_older_names(one) for one in value] if isinstance(value, list) else value


def test_every_older_schema_has_an_upgrade() -> None:
    assert sorted(module.UPGRADES) == list(range(1, module.SCHEMA_VERSION))


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k != key}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "not a run's record"),
        ('{"name": "a"}', "no schema_version"),
        ('{"schema_version": 1, "name": "a"}', "config_hash: missing"),
        ('{"schema_version": 999}', "schema_version 999 is newer than this program, which reads 1 to"),
    ],
)
def test_a_bad_file_gets_clear_lines_that_name_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_record(path)
    assert message in str(caught.value)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines())


@pytest.mark.parametrize("name", ["validation/los", metrics.THROUGHPUT.name])
def test_only_named_metrics_that_do_not_depend_on_the_clock_are_recorded(name: str) -> None:
    with pytest.raises(ValueError, match="unknown metrics"):
        make(metrics={name: 1.0})


def test_a_record_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        make(metrics={"validation/loss": math.nan})


def test_read_all_walks_run_folders(tmp_path: Path) -> None:
    for name in ("b/1", "a/2", "b/0"):
        write_record(make(name), tmp_path / name)
    (tmp_path / "half" / "wandb").mkdir(parents=True)
    (tmp_path / "half" / "metrics.csv").write_text("step\n")
    write_record(make("copy"), tmp_path / "b/1/wandb/offline-run-1/files")
    write_record(make("partial"), tmp_path / ".c.partial")
    assert [(folder, record.name) for folder, record in read_all(tmp_path)] == [
        (tmp_path / name, name) for name in ("a/2", "b/0", "b/1")
    ]


def test_read_all_names_every_corrupt_record(tmp_path: Path) -> None:
    write_record(make("good"), tmp_path / "good")
    for name in ("bad", "worse"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text("{")
    with pytest.raises(UserError) as caught:
        read_all(tmp_path)
    assert ["bad" in line or "worse" in line for line in str(caught.value).splitlines()] == [True, True]

    errors: list[UserError] = []
    assert [record.name for _, record in read_all(tmp_path, errors.append)] == ["good"]
    assert len(errors) == 2


def test_read_all_of_nothing(tmp_path: Path) -> None:
    assert read_all(tmp_path) == []
    with pytest.raises(UserError, match="no such folder"):
        read_all(tmp_path / "missing")


def test_the_frame_has_a_row_for_each_task_and_target() -> None:
    frame = to_frame([make("a"), make("b")])
    assert len(frame) == 2 * (2 + 1 + 1)
    first = frame.iloc[1]
    assert (first["name"], first.kind, first.d_model, first.n_layer) == ("a", "sparse", 64, 2)
    assert (first.sparsity, first.tokens) == ("sparse", 9000)
    assert first.isna()[["seed", "learning_rate"]].all()  # this record has neither
    assert (first.weights, first.nonzeros, first.validation_loss) == (1000, 100, 0.1 + 0.2)
    assert (first.task, first.status, first.target, first.nodes, first.edges) == (
        "with_open",
        "circuit",
        0.15,
        8,
        12,
    )
    assert (first.select_selection_loss, first.selection_loss, first.raw_loss, first.accuracy) == (
        0.1,
        0.69,
        2.5,
        0.5,
    )
    assert first.unpruned_loss == 0.5
    assert frame[frame.task == "var_swap"].edges.isna().all()
    assert frame[frame.task == "else_elif"].unpruned_loss.isna().all()


def test_an_empty_frame_has_the_same_columns() -> None:
    assert list(to_frame([]).columns) == list(to_frame([make()]).columns)


def test_every_value_of_a_row_has_a_column() -> None:
    record = make()
    more = {"edges_only": POOR, "pruned_edges": 7, "pruned": POOR, "target_kind": "relative", "excess": 0.1}
    curve = tuple(point.model_copy(update=more) for point in record.tasks[0].curve)
    changes = {"curve": curve, "retries": 2, "retried_because": "half of all nodes"}
    record = record.model_copy(
        update={"tasks": (record.tasks[0].model_copy(update=changes), *record.tasks[1:])}
    )
    frame = to_frame([record])
    assert all(set(row) <= set(frame.columns) for row in _rows(record))
    first = frame.iloc[0]
    assert (first.retries, first.retried_because, first.edges_only_loss) == (2, "half of all nodes", 0.69)
    assert (first.pruned_edges, first.pruned_loss) == (7, 0.69)
    assert (first.target_kind, first.excess) == ("relative", 0.1)
    assert frame.retries.tolist() == [2, 2, 0, 0]


def test_a_curves_point_is_found_though_the_last_digit_of_the_target_differs() -> None:
    point = make().tasks[0].at(0.1 + 0.05)  # 0.15000000000000002
    assert point is not None
    assert point.nodes == 8
    assert make().tasks[0].at(0.1501) is None


def test_the_summary_counts_tasks_by_what_became_of_them() -> None:
    """Learned is what meets the target unpruned, also where no node is needed or no circuit was found."""
    found, not_learned, not_askable = make().tasks
    others = [
        not_learned.model_copy(update={"task": status, "status": status, "unpruned": GOOD})
        for status in ("no_circuit", "empty_solves")
    ]
    tasks = (found, not_learned, not_askable, *others)
    assert [task.task for task in learned(tasks)] == ["with_open", "no_circuit", "empty_solves"]
    assert summarise(tasks, 0.15) == {
        "circuits/tasks_asked": 4,
        "circuits/tasks_learned": 3,
        "circuits/tasks_with_circuit": 1,
        "circuits/geomean_edges": pytest.approx(12),
        "circuits/geomean_nodes": pytest.approx(8),
        "circuits/test_loss": 0.69,
    }
    assert "circuits/geomean_edges" not in summarise(others, 0.15)
    pruned = tuple(point.model_copy(update={"pruned_edges": 5}) for point in found.curve)
    both = (found.model_copy(update={"curve": pruned}), found.model_copy(update={"curve": pruned}))
    assert summarise(both, 0.15)["circuits/geomean_pruned_edges"] == pytest.approx(5)
    assert "circuits/geomean_pruned_edges" not in summarise((*both, found), 0.15)


def test_geometric_mean() -> None:
    assert geometric_mean([2, 8]) == pytest.approx(4)
    assert geometric_mean([0, 9]) == pytest.approx(3)  # no edge counts as one
    with pytest.raises(ValueError, match="nothing"):
        geometric_mean([])


def test_the_environment_names_code_and_packages_and_nothing_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """S11. The commit is that of the package, wherever one stands."""
    monkeypatch.setenv("WANDB_API_KEY", "hush-hush")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        found = environment()
    assert set(found) == {"git_commit", "git_dirty", "packages", "python"}
    assert found["packages"]["torch"]
    assert (found["git_commit"] is None) == (found["git_dirty"] is None)
    assert "hush-hush" not in json.dumps(found) + caplog.text


def test_s10_snapshots_and_metrics_of_schema_3_have_their_names_of_today(tmp_path: Path) -> None:
    record = make()
    snapshot = Snapshot(fraction=0.5, step=10, nonzeros=7, tasks=record.tasks, shared={"a": 1})
    measured = record.metrics | {metrics.REFERENCE_KL.name: 0.25}
    record = record.model_copy(update={"snapshots": (snapshot,), "metrics": measured})
    old = _of_schema_3(record)
    assert old["formation"][0]["at"] == 0.5
    assert old["metrics"]["dense/kl"] == 0.25
    (tmp_path / "record.json").write_text(json.dumps(old))
    read = read_record(tmp_path)
    assert (read.snapshots, read.metrics, read.tasks) == (record.snapshots, record.metrics, record.tasks)
