"""Each fault of the table in tests/README.md, done to a real process: nothing lost, nothing half-read."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import program as programs
import pytest
from kills import POINT, SWEEP, results
from program import Program, World

SECRETS = {
    "WANDB_API_KEY": "a1b2c3d4" * 5,
    "HF_TOKEN": "hf_plantedPlantedPlanted",
    "AWS_SECRET_ACCESS_KEY": "planted/Secret+Access",
}
SIDE_BY_SIDE = [
    *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    *(*POINT, "evidence=none", "tasks.names=[drink]"),
]


def start(folder: Path, arguments: Sequence[str] = POINT, world: World | None = None) -> Program:
    return programs.start(folder, arguments, world)


@pytest.fixture(scope="module")
def whole(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder in which the command has run without a fault."""

    def run(folder: Path) -> None:
        program = start(folder)
        assert program.end() == 0, program.said()

    return made_once("whole", run)


@pytest.fixture(scope="module")
def expected(whole: Path) -> dict[str, bytes]:
    found = results(whole)
    assert sum(name.endswith("record.json") for name in found) == 1
    return found


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A finished folder to damage."""
    shutil.copytree(whole, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts, and remounts, a file system of its own at one place."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted: list[str] = []

    def mount(options: str) -> Path:
        again = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a file system")
        mounted.append(options)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=False)


def only(folder: Path, pattern: str) -> Path:
    (found,) = (folder / "out").glob(pattern)
    return found


def in_training(folder: Path, rows: int = 4) -> Callable[[], bool]:
    """Whether the training has come as far as so many rows of its log."""

    def reached() -> bool:
        return any(
            len(path.read_bytes().splitlines()) > rows
            for path in (folder / "out").glob("models/.*.partial/metrics.csv")
        )

    return reached


def ends_as(folder: Path, expected: dict[str, bytes]) -> Program:
    """Give the same command again: it ends well, with what an undisturbed run has."""
    program = start(folder)
    assert program.end() == 0, program.said()
    assert results(folder) == expected
    return program


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_step_that_is_saved(
    tmp_path: Path, expected: dict[str, bytes], number: int
) -> None:
    program = start(tmp_path).once(in_training(tmp_path))
    assert program.signal(number) == 128 + number, program.said()
    assert "saved at step" in program.said()
    assert "interrupted: " in program.said()
    assert "Traceback" not in program.said()
    ends_as(tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1m", "3m"])
def test_a_full_disk(
    tmpfs: Callable[[str], Path], tmp_path: Path, expected: dict[str, bytes], size: str
) -> None:
    (tmp_path / "out").symlink_to(tmpfs(f"size={size}"))
    program = start(tmp_path)
    assert program.end() == 1, program.said()
    assert "No space left on device; free some space; to resume, repeat the command" in program.said()
    assert "Traceback" not in program.said()
    tmpfs("size=200m")
    ends_as(tmp_path, expected)


def test_a_folder_that_cannot_be_written(tmpfs: Callable[[str], Path], tmp_path: Path) -> None:
    disk = tmpfs("size=1m,ro")
    program = start(tmp_path, [*POINT, f"root={disk}"])
    assert program.end() == 1
    assert program.said().strip().endswith("Read-only file system")
    assert "Traceback" not in program.said()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "flipped", "a pickle", "both"])
def test_a_damaged_checkpoint_is_told_and_passed_over(
    tmp_path: Path, expected: dict[str, bytes], damage: str
) -> None:
    start(tmp_path).once(in_training(tmp_path)).signal(signal.SIGKILL)
    last = only(tmp_path, "models/.*.partial/checkpoints/last.ckpt")
    data = last.read_bytes()
    ruined = {
        "truncated": data[: len(data) // 2],
        "flipped": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        "a pickle": b"cos\nsystem\n(S'touch executed'\ntR.",
        "both": b"",
    }[damage]
    last.write_bytes(ruined)
    if damage == "both":
        last.with_name("before.ckpt").write_bytes(data[:100])
    program = ends_as(tmp_path, expected)
    assert "last.ckpt: damaged" in program.said()
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "tokens/*/train.bin",
        "tokens/*/tokenizer.json",
        "models/*/model.safetensors",
        "circuits/d*/result.json",
    ],
)
def test_a_damaged_file_of_a_finished_stage_is_named_and_never_used(
    copy: Path, expected: dict[str, bytes], pattern: str
) -> None:
    path = only(copy, pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    program = start(copy)
    assert program.end() == 1
    assert (
        f"{path}: damaged, it is not as it was written; delete the folder, and it is made again"
        in program.said()
    )
    assert "Traceback" not in program.said()
    shutil.rmtree(path.parent)
    ends_as(copy, expected)


def test_a_truncated_record_is_written_again(copy: Path, expected: dict[str, bytes]) -> None:
    path = only(copy, f"{SWEEP}/*/record.json")
    path.write_bytes(path.read_bytes()[:100])
    ends_as(copy, expected)


@pytest.mark.slow
def test_what_a_vanished_machine_leaves_behind_is_in_nobodys_way(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    start(tmp_path).once(in_training(tmp_path)).signal(signal.SIGKILL)
    stages = {Path(name).parent for name in expected if name.startswith("circuits")}
    assert len(stages) == 2
    for stage in stages:  # half-written, and a lock that nobody holds
        half = tmp_path / "out" / stage.parent / f".{stage.name}.partial"
        half.mkdir(parents=True)
        (half / "result.json").write_text("{")
        (half / ".result.json.0a0b0c0d.tmp").write_text("half")
        (half.parent / f".{stage.name}.lock").touch()
    ends_as(tmp_path, expected)


@pytest.mark.slow
def test_out_of_memory_is_said_in_a_line(copy: Path) -> None:
    command = [*POINT, "trainer.batch_size=60000", "trainer.tokens=8000000"]
    program = start(copy, command, World(memory=4 << 30))
    assert program.end() == 1, program.said()
    assert "out of memory: lower trainer.batch_size" in program.said()
    assert "Traceback" not in program.said()


def test_one_points_failure_is_its_own_and_the_end_is_a_table(copy: Path) -> None:
    program = start(copy, ["-m", *POINT, "trainer.learning_rate=1e38,0.01,-1"])
    assert program.end() == 1
    said = program.said()
    assert "failed: " in said
    assert "lower trainer.learning_rate; the last checkpoint is kept" in said
    assert "trainer.learning_rate: -1: input should be greater than 0" in said
    assert "Traceback" not in said
    assert "3 jobs: 1 reused, 2 failed" in said
    assert said.index("-1: input should") < said.index("3 jobs: ")
    assert "2 of 3 jobs are not finished" in said
    status = [sys.executable, "-m", "sparsity_lab.status", SWEEP, "--root", str(copy / "out")]
    shown = subprocess.run(status, capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert shown.stdout.strip() in said  # the same table at any time


@pytest.mark.slow
def test_two_processes_on_the_same_point_make_it_once(tmp_path: Path, expected: dict[str, bytes]) -> None:
    both = [start(tmp_path) for _ in range(2)]
    assert [program.end() for program in both] == [0, 0], both[0].said()
    assert results(tmp_path) == expected
    said = both[0].said()
    for line in ("corpus huggingface ...", "tokens train ...", "step 117 of 117"):
        assert said.count(line) == 1, said
    assert "another process is at work on it" in said


@pytest.mark.slow
def test_two_points_share_a_corpus_that_is_made_once(tmp_path: Path) -> None:
    both = [start(tmp_path, [*POINT, f"seed={seed}"]) for seed in (0, 1)]
    assert [program.end() for program in both] == [0, 0], both[0].said()
    assert both[0].said().count("corpus huggingface ...") == 1
    assert both[0].said().count("step 117 of 117") == 2


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, expected: dict[str, bytes]) -> None:
    program = start(tmp_path, world=World(jumping_clock=True))
    assert program.end() == 0, program.said()
    assert results(tmp_path) == expected


@pytest.mark.slow
def test_a_sweep_that_is_stopped_begins_no_further_point(tmp_path: Path) -> None:
    program = start(tmp_path, ["-m", *POINT, "seed=0,1,2"]).once(in_training(tmp_path))
    assert program.signal(signal.SIGTERM) == 128 + signal.SIGTERM, program.said()
    assert "3 jobs: 1 interrupted, 2 remaining" in program.said()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_point_at_most(tmp_path: Path) -> None:
    program = start(tmp_path, [*SIDE_BY_SIDE, "seed=0,1"]).once(in_training(tmp_path))
    os.kill(workers(program)[0], signal.SIGKILL)
    assert program.end() == 0, program.said()
    assert "a worker was killed" in program.said()
    assert "2 jobs: 2 finished" in program.said()


@pytest.mark.slow
def test_workers_end_when_their_sweep_is_killed(tmp_path: Path) -> None:
    program = start(tmp_path, [*SIDE_BY_SIDE, "seed=0,1"]).once(in_training(tmp_path, 1))
    at_work = [Path(f"/proc/{worker}") for worker in workers(program)]
    assert at_work
    program.signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while any(path.exists() for path in at_work) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(path.exists() for path in at_work)


def workers(program: Program) -> list[int]:
    """The processes that a sweep works in."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == program.process.pid and "loky" in command and "tracker" not in command:
            found.append(int(path.parent.name))
    return found


def test_secrets_reach_nothing_that_is_written(tmp_path: Path) -> None:
    command = [override for override in POINT if override != "logger=csv"]
    command += ["logger=wandb", "logger.mode=offline", "trainer.tokens=10000"]
    program = start(tmp_path, command, World(environment=SECRETS))
    assert program.end() == 0, program.said()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    for path in written:
        data = path.read_bytes()
        for name, secret in SECRETS.items():
            assert secret.encode() not in data, f"{name} in {path}"
