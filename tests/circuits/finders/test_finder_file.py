"""A finder from outside, in one file: its circuits are polished and pruned; a mistake is told in one line."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from micro import PLANTED, evaluator_of, planted_model, quick_pruning

from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.circuits.finders.file import Config
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError

RANDOM_ORDER = (Path(__file__).parents[2] / "own_finder.py").read_text()
PRUNING = quick_pruning(targets=[0.1, 0.3], edges="prune")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "random_order.py"
    path.write_text(RANDOM_ORDER)
    return path


def config_of(path: Path, **options: Any) -> Config:
    return validate(Config, {"kind": "file", "path": str(path), "options": options or None}, "finder")


def found(config: Config) -> list[Circuit]:
    evaluator = evaluator_of(planted_model(), PRUNING, config)
    return find_circuits(evaluator, "question", "planted", config, PRUNING).circuits


def test_it_goes_through_find_polish_and_edge_pruning(file: Path) -> None:
    circuits = found(config_of(file, tries=2))
    assert [circuit.target for circuit in circuits] == [0.1, 0.15, 0.3]
    for circuit in circuits:
        assert set(PLANTED) <= {(node.layer, node.site, node.channel) for node in circuit.nodes}
        assert circuit.provenance["method"] == "random_order"
        assert (circuit.provenance["main"], circuit.provenance["tries"]) == (0.15, 2)
        before = circuit.provenance["nodes_before_polish"]
        assert isinstance(before, int)
        assert len(circuit.nodes) < before  # a random order needs polish
        assert circuit.pruned_edges is not None
        assert 2 <= circuit.pruned_edges <= len(circuit.edges)
        assert circuit.select.raw_loss <= circuit.target


def test_only_plain_values_cross_to_a_worker(file: Path) -> None:
    config = config_of(file, ahead=[0, 1])
    data = pickle.dumps(config)
    assert b"sparsity_lab_extension" not in data
    again = pickle.loads(data)
    assert again == config
    assert hash(again) == hash(config)
    assert again.own().ahead == (0, 1)


def test_the_files_content_is_part_of_its_identity(file: Path) -> None:
    before = config_of(file)
    same = config_of(file)
    file.write_text(RANDOM_ORDER + "\n")
    assert before.identity() == same.identity() != config_of(file).identity()
    with pytest.raises(UserError, match=r"finder.path: .*changed since this run began"):
        found(before)
    with pytest.raises(UserError, match=r"finder.sha256: .*allowed: null, or that$"):
        validate(Config, before.model_dump(mode="json"), "finder")


def test_its_own_config_decides_on_controls(file: Path) -> None:
    assert config_of(file, tries=5).for_controls(0.3).own().model_dump()["tries"] == 0
    assert config_of(file).restored_share == 0


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (RANDOM_ORDER, {"colour": 1}, r"^finder.options.colour: unknown key; allowed: kind, ahead, tries$"),
        (RANDOM_ORDER, {"tries": "x"}, r"^finder.options.tries: 'x': input should be a valid integer"),
        ("x = 1", {}, r"^finder.path: .*: needs a class Config\(FinderConfigBase\) and a function find"),
        ("1 / 0", {}, r"^finder.path: .*: ZeroDivisionError: division by zero$"),
    ],
)
def test_a_file_or_option_that_does_not_fit_is_one_line(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        config_of(tmp_path / "mine.py", **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^finder.path: .*nowhere.py: No such file or directory$"):
        config_of(tmp_path / "nowhere.py")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{0.2: Found(everything, {})}", r"find: target 0.2: not asked for; allowed: 0.15, 0.1, 0.3$"),
        ("{0.1: Found(~everything, {})}", r"find: target 0.1: its 0 nodes have loss \d\.\d+$"),
        ("{0.1: Found(everything.float(), {})}", r"target 0.1: torch.float32 .*: allowed: torch.bool"),
        ("{0.1: Found(everything, {'a': everything})}", r"target 0.1: notes: a: allowed: text, numbers"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(tmp_path: Path, returned: str, message: str) -> None:
    body = RANDOM_ORDER.partition("def find")[0] + (
        "def find(evaluator, config, targets, seed):\n"
        "    everything = torch.ones_like(evaluator.means_n, dtype=torch.bool)\n"
        f"    return {returned}\n"
    )
    (tmp_path / "mine.py").write_text(body)
    with pytest.raises(UserError, match=message):
        found(config_of(tmp_path / "mine.py"))
