"""Every finder by one contract: it finds the planted circuit, its defaults are conf's, it needs no torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from micro import PLANTED, evaluator_of, planted_model, quick_pruning
from omegaconf import OmegaConf

from sparsity_lab.circuits.circuit import load_circuit, save_circuit
from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.finders import FINDERS, FinderConfig
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.core.config import validate
from sparsity_lab.sweep.sweeper import folder_of

ROOT = Path(__file__).parents[3]
CONF = folder_of("conf")
KINDS = {config.model_fields["kind"].default: config for config in FINDERS}
SHIPPED = ("masks", "gradient", "integrated")


def values(group: str, option: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    return plain


def finder_of(option: str) -> FinderConfig:
    plain = values("finder", option)
    return validate(KINDS[plain["kind"]], plain | ({"steps": 60} if option == "masks" else {}))


@pytest.mark.parametrize("option", SHIPPED)
@pytest.mark.parametrize("edges", ["all", "prune"])
def test_the_planted_circuit_is_found(option: str, edges: str, tmp_path: Path) -> None:
    finder, pruning = finder_of(option), quick_pruning(targets=[0.05], edges=edges)
    evaluator = evaluator_of(planted_model(), pruning, finder)
    circuits = find_circuits(evaluator, "question", "planted", finder, pruning).circuits
    assert [circuit.target for circuit in circuits] == [0.05, 0.15]
    for circuit in circuits:
        assert set(PLANTED) <= {(node.layer, node.site, node.channel) for node in circuit.nodes}
        assert circuit.provenance["method"] == option
        assert circuit.select.raw_loss <= circuit.target
        assert (circuit.pruned is None) == (edges == "all")
        assert circuit.pruned is None or circuit.pruned.select.raw_loss <= circuit.target
        save_circuit(circuit, tmp_path / "circuit.json")
        assert load_circuit(tmp_path / "circuit.json") == circuit


@pytest.mark.parametrize("option", ["masks", "gradient"])
def test_a_finders_defaults_are_those_of_conf(option: str) -> None:
    plain = values("finder", option)
    config = KINDS[plain["kind"]]
    assert set(plain) == set(config.model_fields)
    assert config.model_validate({}) == validate(config, plain)


def test_the_shared_defaults_are_those_of_conf() -> None:
    plain = values("pruning", "default")
    assert set(plain) == set(PruningConfig.model_fields)
    assert PruningConfig() == validate(PruningConfig, plain)


def test_a_control_is_given_up_early_for_masks_and_the_same_for_others() -> None:
    assert finder_of("masks").for_controls(0.3).model_dump()["give_up"] == 0.3
    assert finder_of("gradient").for_controls(0.3) == finder_of("gradient")


def test_finders_and_their_configs_are_imported_without_torch() -> None:
    code = (
        "import sys, sparsity_lab.circuits.finders, sparsity_lab.circuits.config; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'numba', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
