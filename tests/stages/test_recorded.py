"""Which config is whose result: what the hash of a result covers, and which records stand for a job."""

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.results.record import read_record
from sparsity_lab.results.recorded import record_file
from sparsity_lab.results.runs import read_all
from sparsity_lab.stages import recorded
from sparsity_lab.stages.foreseen import foreseen
from sparsity_lab.stages.recorded import keep_copy, record_of, result_hash
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper, register_sweeps
from tests.analysis.made_up import empty_record

SMALL = ["tasks.names=[with_as]", "tasks.n_train_pairs=4", "tasks.n_select_pairs=4", "tasks.n_test_pairs=4"]
UNCOUNTED = {  # stages that no part of a record depends on, or that a recorded run cannot have
    "STEERING_VERSION",
    "AGREEMENT_VERSION",
    "EXAMPLES_VERSION",
    "IMPORTED_VERSION",
    "BRIDGE_VERSION",
}


def config_of(*overrides: str) -> RunConfig:
    register_sweeps()
    register_sweeper()
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", [*SMALL, *overrides]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["root=elsewhere", "records=there", "threads=1", "logger=csv"],
        [
            "trainer.log_every=7",
            "trainer.checkpoint_every=7",
            "trainer.workers=1",
            "trainer.pin_memory=false",
        ],
    ],
)
def test_where_and_how_fast_it_runs_does_not_matter(overrides: list[str]) -> None:
    assert result_hash(config_of(*overrides)) == result_hash(config_of())


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "sweep_name=other",
        "trainer.tokens=1000000",
        "trainer.start=scratch",
        "trainer.precision=bfloat16",
        "sparsity=amortised",
        "model.d_model=64",
        "corpus.megabytes=1",
        "corpus.real_fraction=0",
        "tokenizer.vocab_size=500",
        "tasks.seed=1",
        "finder.steps=5",
        "pruning.edges=prune",
        "evidence=none",
    ],
)
def test_whatever_makes_the_result_matters(override: str) -> None:
    same = result_hash(config_of("trainer.precision=float32"))
    changed = result_hash(config_of("trainer.precision=float32", override))
    assert (changed == same) == (override == "trainer.start=scratch")  # which is the default


def test_the_version_of_a_stage_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    before = result_hash(config_of())
    monkeypatch.setitem(recorded.VERSIONS, "circuits", recorded.VERSIONS["circuits"] + 1)
    assert result_hash(config_of()) != before


def test_the_version_of_evidence_matters_where_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    without, of_one_task = config_of("evidence=none"), config_of("evidence.tasks=[with_as]")
    before = [result_hash(config) for config in (config_of(), of_one_task, without)]
    assert len(set(before)) == 3
    monkeypatch.setitem(recorded.VERSIONS, "evidence", recorded.VERSIONS["evidence"] + 1)
    after = [result_hash(config) for config in (config_of(), of_one_task, without)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_every_stages_version_is_counted_or_named_here() -> None:
    package = Path(recorded.__file__).parents[1]
    found = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r"^([A-Z]+_VERSION) = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    counted = set(re.findall(r": ([A-Z]+_VERSION),", Path(recorded.__file__).read_text(encoding="utf-8")))
    assert len(counted) == len(recorded.VERSIONS)
    assert found == counted | UNCOUNTED | {"SCHEMA_VERSION"}


def kept(tmp_path: Path, *overrides: str, **changes: Any) -> RunConfig:
    """A config whose record lies in its folder of records."""
    config = config_of(f"records={tmp_path}", *overrides)
    values: dict[str, Any] = {"config": config.model_dump(mode="json")} | changes
    keep_copy(config, empty_record("run", **values), RunFolder(tmp_path / ".run"))
    return config


def test_the_curve_and_the_seconds_of_a_run_are_kept_beside_its_record(tmp_path: Path) -> None:
    config, folder = config_of(f"records={tmp_path / 'records'}"), RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.metrics.write_text("step\n1\n")
    folder.timings.write_text('{"train": 2.0}')
    record = empty_record("run", config=config.model_dump(mode="json"))
    for _ in range(2):
        keep_copy(config, record, folder)
    path = record_file(tmp_path / "records", config.name, result_hash(config))
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "metrics.csv",
        "record.json",
        "timings.json",
    ]
    assert (path.parent / "metrics.csv").read_text() == "step\n1\n"


def test_a_kept_record_does_not_name_the_folders_of_its_machine(tmp_path: Path) -> None:
    changes = ("root=/mine/runs", "seed=1")
    config = kept(tmp_path, *changes, overrides=(*changes, f"records={tmp_path}"))
    path = record_of(config)
    assert path is not None
    assert read_record(path).overrides == ("seed=1",)
    assert "/mine" not in path.read_text()
    assert str(tmp_path) not in path.read_text()


def test_a_record_stands_for_the_job_of_the_same_result_alone(tmp_path: Path) -> None:
    config = kept(tmp_path)
    path = record_file(tmp_path, config.name, result_hash(config))
    assert record_of(config) == path
    assert record_of(config_of(f"records={tmp_path}", "root=elsewhere")) == path
    assert foreseen(config).record == path
    assert record_of(config_of(f"records={tmp_path}", "seed=1")) is None
    assert record_of(config_of(f"records={tmp_path}/none")) is None
    assert record_of(config_of()) is None
    assert [record.name for _, record in read_all(tmp_path)] == ["run"]


def test_keeping_the_same_record_again_leaves_the_file_alone(tmp_path: Path) -> None:
    config = kept(tmp_path)
    path = record_file(tmp_path, config.name, result_hash(config))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    kept(tmp_path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    kept(tmp_path, python="3.14")
    assert read_json(path)["python"] == "3.14"


def test_the_record_of_another_job_or_a_damaged_one_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = kept(tmp_path)
    path = record_file(tmp_path, config.name, result_hash(config))
    values = read_json(path)
    write_json(path, values | {"config": values["config"] | {"seed": 5}})
    assert record_of(config) is None
    assert caplog.messages[-1] == f"not counted: {path}: the record of another job"
    write_json(path, values | {"config": {"seed": 5}})
    assert record_of(config) is None
    assert caplog.messages[-1].startswith(f"not counted: {path}: config.")
    path.write_text("{")
    assert record_of(config) is None
    assert caplog.messages[-1].startswith(f"not counted: {path}: not readable as JSON")


def test_a_run_whose_config_does_not_say_everything_is_not_recorded(tmp_path: Path) -> None:
    for overrides in (["model=gpt2", "model.path=x", "sparsity=none"], ["reference=trained"]):
        with pytest.raises(UserError, match=r"^config: records: 'x': a config does not say all .*: null$"):
            config_of("records=x", *overrides)


def test_a_jobs_work_is_its_tokens_and_weights() -> None:
    work = foreseen(config_of("model.d_model=64", "model.positions=none", "trainer.tokens=5000000")).work
    assert work is not None
    assert (work.group, work.tokens) == ("sparse d64 l2 magnitude", 5_000_000)
    assert work.weights == 363_648  # those of the dense model in docs/results.md
    dense = foreseen(config_of("model=dense", "sparsity=none")).work
    assert dense is not None
    assert dense.group == "dense d64 l2"
