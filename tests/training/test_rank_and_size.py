"""A process's place: the config first, then the launcher's variables, checked (S13)."""

import os

import pytest

from sparsity_lab.core.errors import UserError
from sparsity_lab.training.config import TrainerConfig
from sparsity_lab.training.place import VARIABLES, Place, hide_launchers, place, unused_processes

ONE = TrainerConfig(tokens=1000, batch_size=8, learning_rate=0.01)
TWO = ONE.model_copy(update={"devices": 2})
TORCHRUN = {"TORCHELASTIC_RUN_ID": "0", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES, "SLURM_JOB_NAME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    "left",
    [{}, TORCHRUN, SRUN, {"RANK": "1"}, {"RANK": "abc"}, {"SLURM_NTASKS": "many"}, {"WORLD_SIZE": "-1"}],
    ids=str,
)
def test_one_process_is_the_first_whatever_the_environment_says(
    left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in left.items():
        monkeypatch.setenv(variable, value)
    assert place(ONE) == Place(0, 1, "none")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place(0, 2, "none")),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place(0, 2, "none")),  # no launcher set these
        (TORCHRUN, Place(1, 2, "torchrun")),
        (SRUN, Place(1, 2, "srun")),
        (SRUN | {"SLURM_JOB_NAME": "bash"}, Place(0, 2, "none")),  # an interactive shell on a cluster
        (SRUN | TORCHRUN | {"RANK": "0"}, Place(0, 2, "torchrun")),  # torchrun started by srun
    ],
    ids=str,
)
def test_of_several_processes_the_launcher_tells_the_rank(
    variables: dict[str, str], expected: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert place(TWO) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (TORCHRUN | {"RANK": "abc"}, r"^RANK: 'abc': must be a whole number; torchrun and srun set it$"),
        (TORCHRUN | {"RANK": "-1"}, r"^RANK: '-1': must be a whole number"),
        (TORCHRUN | {"RANK": "2"}, r"^RANK: 2: must be below WORLD_SIZE, 2$"),
        (TORCHRUN | {"WORLD_SIZE": ""}, r"^WORLD_SIZE: '': must be a whole number"),
        (TORCHRUN | {"WORLD_SIZE": "4"}, r"is 2, but there are 4 processes: start the program once a device"),
        (SRUN | {"SLURM_PROCID": "x"}, r"^SLURM_PROCID: 'x': must be a whole number"),
        (SRUN | {"SLURM_NTASKS": "x"}, r"^SLURM_NTASKS: 'x': must be a whole number"),
        (SRUN | {"SLURM_NTASKS": "3"}, r"is 2, but there are 3 processes"),
        ({"TORCHELASTIC_RUN_ID": "0"}, r"^RANK: missing; torchrun and srun set it$"),
    ],
)
def test_variables_that_are_no_ranks_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message):
        place(TWO)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            TORCHRUN,
            "but WORLD_SIZE is 2: if torchrun has started 2 processes, each of them makes the whole run",
        ),
        (SRUN, "but SLURM_NTASKS is 2: if srun has started 2 processes, each of them makes the whole run"),
        ({}, ""),
        ({"RANK": "1", "WORLD_SIZE": "2"}, ""),  # left by a parent process that no launcher started
        ({"TORCHELASTIC_RUN_ID": "0"}, ""),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, ""),
        (TORCHRUN | {"WORLD_SIZE": "abc"}, ""),
        (SRUN | {"SLURM_NTASKS": "1"}, ""),  # srun -n 1
        (SRUN | {"SLURM_NTASKS": "many"}, ""),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, ""),
    ],
    ids=str,
)
def test_processes_that_one_device_has_no_use_for_are_told(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert (expected in unused_processes(ONE)) if expected else unused_processes(ONE) == ""
    assert unused_processes(TWO) == ""


def test_libraries_do_not_see_variables_of_a_launcher_that_has_not_started_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in (TORCHRUN | SRUN).items():
        monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    with hide_launchers(place(ONE)):
        assert not set(VARIABLES) & set(os.environ)
    assert dict(os.environ) == before
    with hide_launchers(place(TWO)):
        assert dict(os.environ) == before
