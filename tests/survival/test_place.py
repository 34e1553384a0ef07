"""S13: no success without a record, whatever the environment says of ranks; nothing outside the root."""

import csv
import json
from pathlib import Path

import pytest
from program import World, start

TINY = [
    *("experiment=smoke", "logger=csv", "threads=1", "evidence=none"),
    *("corpus.megabytes=0.5", "corpus.real_fraction=0", "tokenizer.vocab_size=600"),
    *("model.n_layer=1", "model.d_model=32", "model.n_ctx=64", "sparsity.nonzeros=20000"),
    *("trainer.tokens=5120", "trainer.batch_size=8", "trainer.validation_windows=16", "trainer.log_every=2"),
    *(
        "tasks.names=[bracket_brace]",
        "tasks.n_train_pairs=16",
        "tasks.n_select_pairs=8",
        "tasks.n_test_pairs=8",
    ),
]
TORCHRUN = {"TORCHELASTIC_RUN_ID": "0", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}
NONSENSE = {"RANK": "abc", "SLURM_PROCID": "-3", "LOCAL_RANK": "", "SLURM_NTASKS": "many"}


def records(root: Path) -> list[Path]:
    """The records of the runs without a sweep; each has its model and all of its training curve."""
    found = sorted(root.glob("single/*/record.json"))
    for path in found:
        assert json.loads(path.read_text())["metrics"]["validation/loss"] > 0
        assert (path.parent / "model" / "model.safetensors").exists()
        with (path.parent / "metrics.csv").open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]] == [
                1,
                2,
                4,
                6,
                8,
                10,
            ]
    return found


def test_a_sweep_under_stale_ranks_and_in_a_jobs_own_folder_leaves_its_records(tmp_path: Path) -> None:
    command = ["-m", *TINY, "seed=0,1", "root=out", "hydra.job.chdir=true", "trainer.precision=float32"]
    program = start(tmp_path, command, World(environment=SRUN | TORCHRUN))
    assert program.end() == 0, program.said()
    assert "2 jobs: 2 finished" in program.said()
    assert program.said().count("each of them makes the whole run") == 1  # once a sweep, not once a job
    assert len(records(tmp_path / "out")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "said"]
    assert len(list((tmp_path / "out" / "corpora").glob("[!.]*"))) == 1  # both jobs have one root
    assert not list((tmp_path / "out" / "logs").rglob("corpora"))
    again = start(tmp_path, command, World(environment=SRUN))
    assert again.end() == 0
    assert "2 jobs: 2 reused" in again.said()


@pytest.mark.slow
@pytest.mark.parametrize("left", [TORCHRUN, SRUN, NONSENSE], ids=["torchrun", "srun", "nonsense"])
def test_s13_a_run_under_stale_ranks_leaves_its_record(tmp_path: Path, left: dict[str, str]) -> None:
    world = World(environment=left | {"HOME": str(tmp_path)})
    program = start(tmp_path, [*TINY, 'root="~/out"'], world)
    assert program.end() == 0, program.said()
    assert len(records(tmp_path / "out")) == 1
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
def test_s13_two_processes_that_srun_has_started_for_one_device_make_one_record(tmp_path: Path) -> None:
    both = [
        start(tmp_path, [*TINY, "root=out"], World(environment=SRUN | {"SLURM_PROCID": str(rank)}))
        for rank in (0, 1)
    ]
    assert [program.end() for program in both] == [0, 0], both[0].said()
    assert len(records(tmp_path / "out")) == 1
    assert both[0].said().count("step 10 of 10") == 1
    assert "SLURM_NTASKS is 2: if srun has started 2 processes" in both[0].said()


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ([], TORCHRUN | {"RANK": "abc"}, "RANK: 'abc': must be a whole number; torchrun and srun set it"),
        ([], SRUN | {"SLURM_PROCID": "7"}, "SLURM_PROCID: 7: must be below SLURM_NTASKS, 2"),
        ([], TORCHRUN | {"WORLD_SIZE": "3"}, "is 2, but there are 3 processes"),
        (
            ["-m"],
            TORCHRUN,
            "trainer.devices: torchrun has started 2 processes, which would each run the sweep",
        ),
        (["-m"], SRUN, "trainer.devices: srun has started 2 processes, which would each run the sweep"),
    ],
)
def test_several_processes_whose_ranks_do_not_fit_fail_in_one_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    command = [*arguments, *TINY, "trainer.devices=2", "root=out"]
    program = start(tmp_path, command, World(environment=variables))
    assert program.end() == 1
    assert expected in program.said()
    assert "Traceback" not in program.said()
    assert not (tmp_path / "out" / "corpora").exists()
