"""A run's hash rests on what is read, wherever and however its paths are written."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper

register_sweeper()


def config_of(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", list(overrides)))


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """Two folders, each with a folder `data` of its own."""
    for name in ("a", "b"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data.jsonl").write_text('{"text": "one"}\n')
    return [tmp_path / "a", tmp_path / "b"]


def test_a_run_s_folder_is_another_for_another_place_and_the_same_for_another_spelling(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    (places[0] / "link").symlink_to(places[0] / "data")
    for place in places:
        monkeypatch.chdir(place)
        digests.append(config_of("corpus=folder", "corpus.path=data").digest)
        assert config_of().digest == config_of("root=elsewhere").digest
    assert digests[0] != digests[1]
    for written in ("../a/data", "../a/data/", "../a/link", str(places[0] / "data")):
        assert config_of("corpus=folder", f"corpus.path={written}").digest == digests[0], written
    monkeypatch.setenv("HOME", str(places[0]))
    assert config_of("corpus=folder", 'corpus.path="~/data"').digest == digests[0]
    assert config_of("seed=1").digest != config_of().digest
    plain = config_of("corpus=folder", "corpus.path=data", "root=runs").plain
    assert plain["corpus"]["path"] == str(places[1] / "data")  # a record holds in any folder
    assert plain["root"] == "runs"
    assert config_of("corpus=folder", "corpus.path=data").model_dump(mode="json")["corpus"]["path"] == "data"


def test_a_local_data_set_is_told_apart_and_a_name_stays_a_name(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = set(), set()
    for place in places:
        monkeypatch.chdir(place)
        local.add(config_of("corpus=huggingface", "corpus.name=data.jsonl").digest)
        remote.add(config_of("corpus=huggingface", "corpus.name=someone/something").digest)
        remote.add(config_of("corpus=huggingface", f"corpus.name={'a' * 300}").digest)  # no file's name
    assert (len(local), len(remote)) == (2, 2)
    monkeypatch.chdir(places[0])
    relative = config_of("corpus=huggingface", "corpus.name=./data.jsonl").digest
    assert relative == config_of("corpus=huggingface", f"corpus.name={places[0] / 'data.jsonl'}").digest
    assert relative in local
