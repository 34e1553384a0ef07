"""A small study, interrupted three times at random moments, ends with the same tables, on one machine or two.

It is `sweeps/frontier.yaml` with two small models. Trials choose the learning rates first, and every record
is copied to a folder of records. Afterwards the models are deleted, and the command is given again.
"""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import program as programs
import pytest
from kills import POINT

from sparsity_lab.results.frames import to_frame
from sparsity_lab.results.runs import read_all
from sparsity_lab.sweep.job_status import FOLDER
from sparsity_lab.sweep.status_table import jobs_of

IN_GRIDS = ("model.d_model", "sparsity.nonzeros", "trainer.learning_rate")
SMALL = [given for given in POINT if not given.startswith(IN_GRIDS)]
GRIDS = (
    "hydra.sweeper.grids=[{seed:'0',model:dense,model.d_model:'16',sparsity:none},"
    "{seed:'0',model:sparse,model.d_model:'32',sparsity:amortised,sparsity.nonzeros:'3000'}]"
)
CHANGES = "hydra.sweeper.choice.overrides={sweep_name:frontier_rates,seed:100,trainer.tokens:10000}"
STUDY = [
    *("-m", "+sweep=frontier", "~corpus.megabytes", *SMALL, "records=records", "evidence=none"),
    *("trainer.tokens=30000", "tasks.names=[drink]"),
    *(GRIDS, CHANGES, "hydra.sweeper.choice.values=[0.01,0.03]", "hydra.launcher.n_jobs=1"),
]
JOBS = {"frontier": 2, "frontier_rates": 4}


def tables(folder: Path) -> dict[str, str]:
    """The table of each sweep, from the folder of records alone; and every record, without who made it."""
    records = [record for _, record in read_all(folder / "records")]
    found = {}
    for sweep, count in JOBS.items():
        own = [record for record in records if record.sweep == sweep]
        assert len(own) == count
        found[sweep] = to_frame(own).to_csv()
    for path in sorted((folder / "records").glob("*/record.json")):
        record = json.loads(path.read_text()) | {"git_commit": None, "git_dirty": None}
        found[path.parent.name] = json.dumps(record)
    return found


def states(folder: Path) -> set[str]:
    return {state for sweep in JOBS for state, _, _ in jobs_of(folder / "out" / sweep / FOLDER)}


def ended(folder: Path) -> None:
    """Give the command, which must end well."""
    running = programs.start(folder, STUDY)
    assert running.end() == 0, running.said()


def kept(folder: Path) -> int:
    """Count the records that have been copied."""
    return len(list(folder.glob("records/*/record.json")))


@pytest.mark.slow
def test_a_study_interrupted_three_times_ends_with_the_same_tables(tmp_path: Path) -> None:
    whole, broken, rng = tmp_path / "whole", tmp_path / "broken", random.Random(0)
    ended(whole)
    expected = tables(whole)
    assert states(whole) == {"finished"}
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        begun = kept(broken)
        # until one more job has ended, and then a random moment
        running = programs.start(broken, STUDY).once(lambda begun=begun: kept(broken) > begun)
        time.sleep(rng.uniform(0, 3))
        assert running.process.is_alive(), running.said()
        assert running.signal(number) != 0
    ended(broken)
    assert tables(broken) == expected

    shutil.rmtree(broken / "out")
    last = sorted((broken / "records").glob("sparse-*"))[0]
    shutil.rmtree(last)
    ended(broken)
    assert tables(broken) == expected
    assert states(broken) == {"recorded", "finished"}
    assert len(list((broken / "out" / "models").glob("[!.]*"))) == 1
