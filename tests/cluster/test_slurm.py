"""A sweep of four points on a real Slurm: one ends, one is preempted, one is killed, one fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from one_node import Unavailable, slurm, wait_for

from sparsity_lab.results.record import RunRecord, read_all

ROOT = Path(__file__).parents[2]
POINT = [
    "experiment=smoke",
    "logger=csv",
    "threads=1",
    "corpus.megabytes=1",
    "corpus.real_fraction=0",
    "tokenizer.vocab_size=700",
    "model.n_layer=1",
    "model.d_model=32",
    "model.n_ctx=64",
    "sparsity.nonzeros=20000",
    "trainer.batch_size=8",
    "trainer.validation_windows=16",
    "trainer.precision=float32",
    "trainer.checkpoint_every=1000000",  # so that what is resumed from was saved at the signal
    "tasks.names=[bracket_brace]",
    "tasks.n_train_pairs=16",
    "tasks.n_select_pairs=8",
    "tasks.n_test_pairs=8",
    "pruning.masks.steps=2",
]
SHORT, LONG = 5_000, 400_000
ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=10",
    "hydra.launcher.partition=main",
]


def program(folder: Path, environment: dict[str, str], *overrides: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    environment = environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sparsity_lab.run", *POINT, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def comparable(record: RunRecord) -> RunRecord:
    """Without what depends on the place: root, sweep, overrides, git."""
    config = record.config | {"root": "", "sweep": None}
    gone = {"name": "", "sweep": None, "overrides": (), "config": config, "config_hash": ""}
    return record.model_copy(update=gone | {"git_commit": None, "git_dirty": None})


@pytest.mark.slow
def test_four_jobs_of_which_one_is_preempted_one_killed_and_one_fails(tmp_path: Path) -> None:
    def ask(*command: str) -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def state(index: int) -> str:
        told = ask("scontrol", "-o", "show", "job", f"{array}_{index}")
        return told.partition("JobState=")[2].split()[0]

    def said(index: int) -> str:
        logs = tmp_path.glob(f"sweep/runs/logs/*/.submitit/{array}_{index}/*_log.*")
        return "".join(path.read_text() for path in sorted(logs))

    try:
        with slurm(tmp_path / "slurm") as environment:
            first = program(tmp_path / "corpus", environment, f"trainer.tokens={SHORT}", "root=../sweep/runs")
            told, _ = first.communicate()
            assert first.returncode == 0, told

            # in the array: 0 ends by itself, 1 is preempted, 2 is killed, 3 has a learning rate that diverges
            points = (
                f"[{{seed:1,trainer.tokens:{SHORT}}},{{trainer.tokens:{LONG}}},"
                f"{{trainer.tokens:{LONG + 512}}},{{trainer.learning_rate:1e38,trainer.tokens:{SHORT}}}]"
            )
            sweep = [f"hydra.sweeper.grids={points}", "sweep=slurm", *ON_SLURM, "-m"]
            running = program(tmp_path / "sweep", environment, *sweep)
            wait_for(lambda: ask("squeue", "-h", "-o", "%A") or running.poll(), 60, "the array")
            assert running.poll() is None, running.communicate()[0]
            array = ask("squeue", "-h", "-o", "%F").split()[0]

            wait_for(lambda: "step " in said(2), 90, "the training of job 2")
            ask("scancel", "--signal=KILL", f"{array}_2")
            for index, end in ((0, "COMPLETED"), (2, "FAILED"), (3, "FAILED")):
                wait_for(
                    lambda i=index: state(i) not in ("RUNNING", "PENDING"), 90, f"the end of job {index}"
                )
                assert state(index) == end, said(index)
            assert "lower trainer.learning_rate" in said(3)

            wait_for(lambda: "step " in said(1), 90, "the training of job 1")
            assert state(1) == "RUNNING", "it was over before it could be preempted"
            ask("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
            wait_for(lambda: state(1) == "PENDING", 30, "preemption")
            ask("scontrol", "update", f"jobid={array}_1", "StartTime=now")
            told, _ = running.communicate(timeout=180)
            assert running.returncode != 0  # of two failed jobs
            assert state(1) == "COMPLETED", said(1)
            assert "saved at step" in said(1)

            again = program(
                tmp_path / "sweep", environment, *sweep
            )  # the killed one is resumed, the rest is there
            told, _ = again.communicate(timeout=180)
            assert again.returncode != 0
    except Unavailable as error:
        pytest.skip(f"no Slurm: {error}")

    records = {
        (record.config["seed"], record.config["trainer"]["tokens"]): record
        for _, record in read_all(tmp_path / "sweep" / "runs" / "slurm")
    }
    assert set(records) == {(1, SHORT), (0, LONG), (0, LONG + 512)}
    alone = program(tmp_path / "alone", dict(os.environ), f"trainer.tokens={LONG}")
    told, _ = alone.communicate()
    assert alone.returncode == 0, told
    ((_, expected),) = read_all(tmp_path / "alone" / "runs" / "single")
    assert comparable(records[0, LONG]) == comparable(expected)
