"""A sweep of four points on a real Slurm: one ends, one is preempted, one is killed, one fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_node import process_of, slurm, wait_for, why_not

from sparsity_lab.results.record import RunRecord
from sparsity_lab.results.runs import read_all

ROOT = Path(__file__).parents[2]
POINT = [
    "experiment=smoke",
    "evidence=none",
    "logger=csv",
    "threads=1",
    "corpus.megabytes=1",
    "corpus.real_fraction=0",
    "tokenizer.vocab_size=700",
    "model.n_layer=1",
    "model.d_model=32",
    "model.n_ctx=64",
    "trainer.batch_size=8",
    "trainer.validation_windows=16",
    "trainer.precision=float32",
    "trainer.log_every=10",
    "trainer.checkpoint_every=1000000",  # so that what is resumed from was saved at the signal
    "tasks.names=[bracket_brace]",
    "tasks.n_train_pairs=16",
    "tasks.n_select_pairs=8",
    "tasks.n_test_pairs=8",
    "finder.steps=2",
]
SHORT, LONG = "trainer.tokens:5000", "trainer.tokens:150000"
POINTS = {  # by their number of nonzero weights, which their folders are named after
    19000: SHORT,
    20000: LONG,  # preempted
    21000: LONG,  # killed
    22000: f"{SHORT},trainer.learning_rate:1e38",  # diverges
}
GRIDS = ",".join(f"{{sparsity.nonzeros:{nonzeros},{values}}}" for nonzeros, values in POINTS.items())
OVER = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=10",
    "hydra.launcher.partition=main",
]


def program(folder: Path, environment: dict[str, str], *overrides: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    environment = environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sparsity_lab.run", *POINT, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def comparable(record: RunRecord) -> RunRecord:
    """Without what depends on the place: root, sweep, overrides, git."""
    config = record.config | {"root": "", "sweep_name": None}
    gone = {"name": "", "sweep": None, "overrides": (), "config": config, "config_hash": ""}
    return record.model_copy(update=gone | {"git_commit": None, "git_dirty": None})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_four_jobs_of_which_one_is_preempted_one_killed_and_one_fails(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    def ask(*command: str) -> str:
        return subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout

    def state(index: int) -> str:
        told = ask("scontrol", "-o", "show", "job", f"{array}_{index}")
        return told.partition("JobState=")[2].split()[0]

    def said(index: int) -> str:
        logs = tmp_path.glob(f"sweep/runs/logs/*/.submitit/{array}_{index}/*_log.*")
        return "".join(path.read_text() for path in sorted(logs))

    def signal_in_training(nonzeros: int, number: int) -> None:
        """Send a signal to a job once its training has come some way."""
        logs = f"sweep/runs/models/.*-n{nonzeros}-*.partial/metrics.csv"
        wait_for(
            lambda: any(len(path.read_text().splitlines()) > 2 for path in tmp_path.glob(logs)),
            120,
            f"the training of {nonzeros}",
        )
        index = list(POINTS).index(nonzeros)
        os.kill(
            process_of(cluster, ask("squeue", "-h", "-o", "%A", "-j", f"{array}_{index}").strip()), number
        )

    preempted, killed, failing = 1, 2, 3
    corpus = program(tmp_path / "sweep", cluster, "sparsity.nonzeros=18000", "trainer.tokens=5000")
    told, _ = corpus.communicate()
    assert corpus.returncode == 0, told

    sweep = [f"hydra.sweeper.grids=[{GRIDS}]", *ON_SLURM, "-m"]
    running = program(tmp_path / "sweep", cluster, *sweep)
    wait_for(lambda: ask("squeue", "-h", "-o", "%F") or running.poll(), 60, "the array")
    assert running.poll() is None, running.communicate()[0]
    array = ask("squeue", "-h", "-o", "%F").split()[0]

    signal_in_training(20000, signal.SIGSTOP)  # so that it isn't over before the others are
    signal_in_training(21000, signal.SIGKILL)
    for index in (0, killed, failing):
        wait_for(lambda i=index: state(i) in OVER, 120, f"the end of job {index}")
    assert state(killed) == "FAILED", said(killed)
    assert "lower trainer.learning_rate" in said(failing)

    ask("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_for(lambda: state(preempted) == "PENDING", 30, "preemption")
    ask("scontrol", "update", f"jobid={array}_{preempted}", "StartTime=now")
    told, _ = running.communicate(timeout=180)
    assert running.returncode == 1, told  # of one that was killed and one that failed
    assert "Traceback" not in told
    assert "4 jobs: 2 finished, 1 failed, 1 interrupted" in told
    assert "saved at step" in said(preempted)

    again = program(tmp_path / "sweep", cluster, *sweep)  # the killed one goes on
    told, _ = again.communicate(timeout=180)
    assert again.returncode == 1, told
    assert "4 jobs: 1 finished, 2 reused, 1 failed" in told

    records = {
        record.config["sparsity"]["nonzeros"]: record
        for _, record in read_all(tmp_path / "sweep" / "runs" / "single")
    }
    assert set(records) == {18000, 19000, 20000, 21000}
    alone = program(tmp_path / "alone", dict(os.environ), "sparsity.nonzeros=20000", "trainer.tokens=150000")
    told, _ = alone.communicate()
    assert alone.returncode == 0, told
    ((_, expected),) = read_all(tmp_path / "alone" / "runs" / "single")
    assert comparable(records[20000]) == comparable(expected)
