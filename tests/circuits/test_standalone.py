"""S14: a circuit's loss is computed again from its files and the model's export, by a script without us."""

import ast
import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_run import pairs_of, write_run
from safetensors.torch import load_file, save_file

from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.standalone import MEANS, PAIRS, PAIRS_AS_TEXT, beside, load_means, load_pairs
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.export import export
from sparsity_lab.model.checkpoints import read_card
from sparsity_lab.model.config import RotaryScaling
from sparsity_lab.model.sites import Site
from sparsity_lab.tasks.pairs_file import read_pairs

SCRIPT = Path(__file__).parents[2] / "docs" / "recompute.py"


def recompute(out: Path, circuit: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of the documented script, 1 if the two losses differ."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(out), str(circuit)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"closed": True},
        {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"},
        {"bigram": "learned", "positions": "learned", "tied_embeddings": True, "activation": "gelu_tanh"},
        {"positions": "concatenated", "d_pos": 4, "n_head": 3, "activation_sites": (Site.MLP_NEURON,)},
        {"norm": "layer", "bias": False, "norm_eps": 0.1, "activation": "relu"},
        {"residual_activation": "relu", "residual_sites": ("resid_post_attn", "resid_post_mlp")},
        {"gated_mlp": True, "activation": "silu", "positions": "rotary", "closed": True},
        {"freeze_norm": True, "closed": True},
        {"freeze_norm": True, "norm": "layer", "positions": "concatenated", "d_pos": 4, "n_head": 3},
        {
            "gated_mlp": True,
            "positions": "rotary",
            "rotary_theta": 40.0,
            "rotary_scaling": RotaryScaling(kind="llama3", factor=8.0, original_n_ctx=12),
        },
    ],
)
def test_s14_an_independent_script_finds_the_same_loss(
    tmp_path: Path,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, circuit = write_run(tmp_path / "run", **changes)
    export(tmp_path / "run", tmp_path / "out")
    shutil.rmtree(tmp_path / "run")
    copied = tmp_path / "out" / "circuits" / "letter" / "circuit-5.json"
    assert recompute(tmp_path / "out", copied, monkeypatch) == 0
    here, there = (float(word) for word in capsys.readouterr().out.split() if word[0].isdigit())
    assert here == pytest.approx(circuit.test.raw_loss, abs=1e-4)
    assert there == pytest.approx(circuit.test.raw_loss, abs=1e-6)
    changed = read_json(copied)
    changed["nodes"] = changed["nodes"][10:]
    write_json(copied, changed)
    assert recompute(tmp_path / "out", copied, monkeypatch) == 1  # the script does look at the nodes


def test_the_script_refuses_a_circuit_on_the_other_prompts_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    copied = tmp_path / "out" / "circuits" / "letter" / path.name
    changed = read_json(copied)
    changed["provenance"]["ablation"] = "other_prompt"
    write_json(copied, changed)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path / "out"), str(copied)])
    with pytest.raises(SystemExit, match=r"values on other prompts; python -m sparsity_lab.score"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_imports_torch_and_safetensors_alone() -> None:
    tree = ast.parse(SCRIPT.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {
        "torch",
        "safetensors",
    }


def test_a_circuit_names_its_model_its_task_and_the_files_beside_it(tmp_path: Path) -> None:
    path, circuit = write_run(tmp_path / "run")
    assert circuit.model_hash is not None
    assert circuit.task_hash is not None
    assert beside(circuit, path, "frozen") == path.with_name(MEANS)
    assert beside(circuit, path, "pairs") == path.with_name(PAIRS)
    text = [(p.positive, p.negative, p.answers, p.split) for p in read_pairs(path.with_name(PAIRS_AS_TEXT))]
    expected = [(p.positive, p.negative, p.answers, s) for s in ("select", "test") for p in pairs_of(s)]
    assert text == expected
    older = circuit.model_dump(mode="json")
    for field in ("model_hash", "task_hash", "frozen", "pairs"):
        del older[field]
    write_json(tmp_path / "older.json", older)
    assert load_circuit(tmp_path / "older.json").frozen is None


def test_the_file_of_another_circuit_is_refused(tmp_path: Path) -> None:
    path, circuit = write_run(tmp_path / "run")
    tensors = load_file(path.with_name(MEANS))
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, path.with_name(MEANS))
    with pytest.raises(UserError, match=r"frozen: .*means.safetensors is not the file that was written with"):
        beside(circuit, path, "frozen")
    path.with_name(PAIRS).unlink()
    with pytest.raises(UserError, match=r"pairs: .*pairs.safetensors: No such file"):
        beside(circuit, path, "pairs")
    outside = circuit.model_dump(mode="json")
    outside["frozen"]["file"] = "../means.safetensors"
    (tmp_path / "outside.json").write_text(json.dumps(outside))
    with pytest.raises(UserError, match=r"frozen.file: '../means.safetensors': string should match"):
        load_circuit(tmp_path / "outside.json")


def test_means_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path, _ = write_run(tmp_path / "run")
    config = read_card(tmp_path / "run" / "model").config
    tensors = load_file(path.with_name(MEANS))
    assert len(load_means(path.with_name(MEANS), config)) == sum(map(len, tensors.values()))
    for wrong, told in (
        ({"2.attn_in": torch.zeros(16)}, "unknown: 2.attn_in"),
        ({"0.attn_in": torch.zeros(15)}, r"wrong shape: 0.attn_in \[15\] instead of \[16\]"),
        ({"0.attn_in": torch.full((16,), torch.nan)}, r"not finite: 0.attn_in \(16 of 16\)"),
    ):
        save_file(tensors | wrong, tmp_path / MEANS)
        with pytest.raises(UserError, match=told):
            load_means(tmp_path / MEANS, config)


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("test.tokens", None, "missing: test.tokens"),
        ("test.tokens", torch.full((30, 5), 300), "test.tokens: allowed: 0 to 299"),
        ("test.last", torch.full((30,), 99), "test.last: allowed: 0 to"),
        ("test.answers", torch.zeros(30, 3).long(), "test: not the tokens, ends and answers of pairs"),
        ("test.answers", torch.zeros(30, 2), "test: not the tokens, ends and answers of pairs"),
    ],
)
def test_pairs_that_do_not_fit_are_told(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, told: str
) -> None:
    path, _ = write_run(tmp_path / "run")
    tensors = load_file(path.with_name(PAIRS))
    assert len(load_pairs(path.with_name(PAIRS), 300)["test"].label_b) == 30
    del tensors[name]
    save_file(tensors | ({} if tensor is None else {name: tensor}), tmp_path / PAIRS)
    with pytest.raises(UserError, match=told):
        load_pairs(tmp_path / PAIRS, 300)
