"""SIGKILLs at random moments of a small sweep; the same command again must then end as if nothing had been.

    python tests/survival/kills.py 100 --seed 0

Each round starts with an empty folder, gives the command, kills its process after a random time, gives it
again, and so on until it ends by itself; then every record, model, circuit and log is compared. A pool
of processes writes the corpus, and another finds the circuits; both must end with the process that is killed.
That one is forked from this process, which has imported everything, so that the moments fall into the work,
not into imports.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does for tests/
import plain_text
from program import DEADLINE, become

SWEEP = "single"  # where runs without a sweep file go
POINT = [
    *("experiment=smoke", "logger=csv", "threads=1", "root=out", *plain_text.overrides()),
    *("trainer.validation_windows=16", "trainer.checkpoint_every=12", "trainer.log_every=10"),
    *("tasks.names=[drink,wear]", "tasks.n_train_pairs=64", "tasks.n_select_pairs=32"),
    *("tasks.n_test_pairs=32", "finder.steps=15", "pruning.target=0.6", "pruning.targets=[0.65]"),
]
COMMAND = ["-m", *POINT, "seed=0,1"]
# a corpus large enough that a pool of processes writes it, and another pool for the tasks of each point
WITH_POOLS = [
    *(
        given
        for given in COMMAND
        if not given.startswith(("corpus", "tokenizer", "tasks.path", "tasks.names"))
    ),
    *(f"tasks.path={Path(__file__).with_name('short_tasks.py')}", "tasks.names=all"),
    *("threads=2", "corpus.megabytes=5", "corpus.real_fraction=0", "tokenizer.vocab_size=600"),
    *("trainer.tokens=200000", "trainer.final_windows=64"),
    "evidence=none",
]


@contextmanager
def command(folder: Path, arguments: list[str]) -> Iterator[int]:
    """The program at work in `folder`, as a process that is gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        become(folder, arguments)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def wait(pid: int, seconds: float) -> int | None:
    """The exit status, or None if the process is still there after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def results(folder: Path) -> dict[str, bytes]:
    """All that a sweep leaves and that must be the same: records, models, circuits; logs but for speed."""
    out = folder / "out"
    found = {}
    for path in sorted(out.glob(f"{SWEEP}/*/record.json")):
        record = json.loads(path.read_text())
        record |= {"git_commit": None, "git_dirty": None}  # someone may be editing the checkout
        found[str(path.relative_to(out))] = json.dumps(record).encode()
    for path in sorted(out.glob(f"{SWEEP}/*/metrics.csv")):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        column = rows[0].index("train/tokens_per_second")
        text = "\n".join(",".join(row[:column] + row[column + 1 :]) for row in rows)
        found[str(path.relative_to(out))] = text.encode()
    for pattern in (
        "corpora/[!.]*/*",
        "models/[!.]*/model*",
        "validations/[!.]*/*",
        "circuits/[!.]*/*",
        "tokens/[!.]*/*",
    ):
        found |= {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob(pattern))}
    return found


def stage(folder: Path) -> str:
    """What was being done when the process was killed, by what it left half-done."""
    for partial in sorted(folder.glob("out/*/.*.partial")):
        room = partial.parent.name  # tokens: the tokenizer too
        if room != "models":
            return room
        if any(partial.glob("checkpoints/.*.tmp")):
            return "checkpoint writing"
        return "training" if (partial / "metrics.csv").exists() else "before training"
    return "between stages, record writing"


def kill_at_random(
    folder: Path, kills: int, seed: int, arguments: list[str], tell: Callable[[str], object]
) -> Counter[str]:
    """Make `kills` kills of one command; returns how many fell into which stage.

    Raises:
        AssertionError: a command failed or hung, or what it left differs from what an uninterrupted one left.
    """
    import sparsity_lab.stages.pipeline  # noqa: F401  what every process forked from here has then imported

    rng, fell, done, rounds = random.Random(seed), Counter[str](), 0, 0
    started = time.monotonic()
    with command(folder / "whole", arguments) as pid:
        assert wait(pid, DEADLINE) == 0, (folder / "whole" / "said").read_text()
    whole, expected = time.monotonic() - started, results(folder / "whole")
    records = [json.loads(text) for name, text in expected.items() if name.endswith("record.json")]
    assert len(records) == 2
    states = [[task["status"] for task in record["tasks"]] for record in records]
    assert all("circuit" in tasks for tasks in states), f"{states}: kills would hardly fall into circuits"
    tell(f"uninterrupted: {whole:.1f} s, {len(expected)} files\n")
    while done < kills:
        rounds += 1
        place, in_round, status = folder / f"round{rounds}", 0, None
        while status is None:
            with command(place, arguments) as pid:
                more = done + in_round < kills and in_round < 12
                status = wait(pid, rng.uniform(0, whole / 4) if more else DEADLINE)
                assert status is not None or more, f"hangs: {(place / 'said').read_text()}"
            if status is None:
                in_round += 1
                fell[stage(place)] += 1
        assert status == 0, (place / "said").read_text()
        found = results(place)
        different = sorted(
            name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)
        )
        assert not different, f"{place}: {different}"
        assert not list(place.glob("out/*/.*.partial"))
        assert not list(place.glob("out/**/.*.tmp"))
        done += in_round
        so_far = ", ".join(f"{count} in {name}" for name, count in fell.most_common())
        tell(f"round {rounds}: {in_round} kills, then the same {len(found)} files; {done} of {kills}\n")
        tell(f"  so far {so_far}\n")
        shutil.rmtree(place)
    return fell


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-pools", action="store_true", help="a small corpus, and one process for each point"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = COMMAND if arguments.no_pools else WITH_POOLS
        fell = kill_at_random(Path(folder), arguments.kills, arguments.seed, overrides, sys.stdout.write)
    sys.stdout.write(f"{arguments.kills} kills, seed {arguments.seed}: all records equal\n")
    for name, count in fell.most_common():
        sys.stdout.write(f"  {count:4} in {name}\n")


if __name__ == "__main__":
    main()
