"""No result is reused for another input: an edit of an input makes anew exactly what depends on it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import plain_text
import pytest
import torch
from hydra import compose, initialize_config_dir
from test_smoke import SMALL

from sparsity_lab.config import from_hydra
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.core.stage import ABOUT, checksum
from sparsity_lab.results.record import RunRecord
from sparsity_lab.stages import evidence, pipeline
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper
from sparsity_lab.tasks import asked
from sparsity_lab.tasks.task import Pair

OWN = """
import plain_text
from sparsity_lab.tasks.task import Task
def make(rng):
    return plain_text.make("wear")(rng)
def make_other(rng):
    return plain_text.make("drink")(rng)
own = Task("own", "the first line says what to wear", make)
TASKS = [own, Task("other", "the first line says what to drink", make_other)]
"""
ALL = ("circuits", "evidence", "examples")
register_sweeper()


class Workplace:
    """A corpus, a task of the user's own, and a program that is called again after each edit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.task = folder, folder / "out", folder / "own.py"
        self.corpus = folder / "corpus"
        self.corpus.mkdir()
        for i, text in enumerate(plain_text.documents()):
            (self.corpus / f"{i}.py").write_text(text)
        self.task.write_text(OWN)

    def run(self, *overrides: str) -> RunRecord:
        own = ["corpus=folder", f"corpus.path={self.corpus}", f"root={self.root}", f"tasks.path={self.task}"]
        few = ["tasks.names=[own,other]", "corpus.validation_share=0.1", "pruning.targets=[0.6]"]
        ours = ("corpus", "tasks.path", "tasks.names")
        small = [value for value in SMALL if not value.startswith(ours)]
        with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
            config = from_hydra(compose("config", [*small, *own, *few, *overrides]))
        record, _ = pipeline.run(config, [])
        self.run_folder = RunFolder(self.root / "single" / record.name)
        return record

    def folders(self) -> set[Path]:
        return {path for path in self.root.glob("*/[!.]*") if path.parent.name not in ("single", "logs")}

    def new(self, *overrides: str) -> list[str]:
        """Run again; room/label of each folder made anew."""
        before = self.folders()
        self.run(*overrides)
        made = self.folders() - before
        return sorted(f"{path.parent.name}/{path.name.rpartition('-')[0]}" for path in made)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("inputs"))
    record = place.run()
    assert [(task.task, task.status) for task in record.tasks] == [
        ("own", "circuit"),
        ("other", "circuit"),
    ]
    assert len(record.snapshots) == 1
    return place


@pytest.fixture(autouse=True)
def _as_it_was(place: Workplace) -> Iterator[None]:
    yield
    place.task.write_text(OWN)
    asked._pairs.cache_clear()


def of(task: str, *rooms: str) -> list[str]:
    return [f"{room}/{task}" for room in rooms]


def test_nothing_is_made_anew_when_nothing_changed(place: Workplace) -> None:
    assert place.new() == []
    place.task.write_text(OWN + "# a comment changes no pair\n")
    assert place.new() == []


def test_a_tasks_generator(place: Workplace) -> None:
    place.task.write_text(OWN.replace("def make(rng):", "def make(rng):\n    rng.random()"))
    assert place.new() == of("own", "circuits", "circuits", "evidence", "examples", "shortcuts")


def test_a_tasks_description(place: Workplace) -> None:
    place.task.write_text(OWN.replace("says what to wear", "tells what to wear"))
    made = place.new()
    assert made == of("own", "circuits", "circuits", "evidence", "examples", "shortcuts")
    shown = read_json(place.run_folder.examples("own") / "examples.json")
    assert shown["description"] == "the first line tells what to wear"


def test_a_task_that_has_no_circuit_any_more_keeps_no_links(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.new() == []
    run = place.run_folder
    assert run.examples("other").exists()
    assert run.evidence("other").exists()

    make = plain_text.make

    def swapped(verb: str) -> Callable[[random.Random], Pair]:
        def pair(rng: random.Random) -> Pair:
            made = make(verb)(rng)
            return replace(made, positive=made.negative, negative=made.positive) if verb == "drink" else made

        return pair

    monkeypatch.setattr(plain_text, "make", swapped)
    asked._pairs.cache_clear()  # as a new process would
    record = place.run()
    assert place.run_folder == run
    assert [result.status for result in record.tasks] == ["circuit", "not_learned"]
    assert not run.examples("other").is_symlink()
    assert not run.evidence("other").is_symlink()
    assert run.circuits("other") == []
    assert run.examples("own").exists()
    assert "examples/other" not in record.stages


def test_a_circuits_content(place: Workplace) -> None:
    place.run()
    folder = place.run_folder.result("own").parent.resolve()
    (path,) = place.run_folder.circuits("own")
    circuit = read_json(path)
    circuit["provenance"]["edited"] = True
    write_json(folder / path.name, circuit)
    about = read_json(folder / ABOUT)
    about["files"][path.name] = checksum(folder / path.name)
    write_json(folder / ABOUT, about)
    assert place.new() == of("own", "evidence", "examples")


def test_the_configs_of_evidence_and_of_finding(place: Workplace) -> None:
    place.run()
    both = ("other", "own")
    assert place.new("evidence.draws=1") == [f"evidence/{task}" for task in both]
    made = place.new("finder.steps=14")
    assert [name for name in made if name.startswith("circuits/")] == [
        f"circuits/{task}" for task in both for _ in range(2)
    ]
    assert {name.partition("/")[0] for name in made} == set(ALL)


def test_the_real_source_that_evidence_reads(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run()
    monkeypatch.setattr(evidence, "real_pieces", lambda seed: ("import another\n",))
    assert place.new() == ["evidence/other", "evidence/own"]


@pytest.mark.slow  # trains once more
def test_a_file_of_the_corpus(place: Workplace) -> None:
    with (place.corpus / "0.py").open("a") as file:
        file.write("size = 1\n")
    made = place.new()
    assert {name.partition("/")[0] for name in made} >= {"corpora", "tokens", "models", "circuits"}
    assert {name.partition("/")[2] for name in made if name.startswith("circuits/")} == {"own", "other"}
