"""A model's folder: what is read is what was written, to the bit; anything else is told."""

from pathlib import Path

import pytest
import torch
from micro import micro_model, random_tokens, small_model
from safetensors.torch import load_file, save_file

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.model.checkpoints import count_weights, load_model, save_model


@pytest.mark.parametrize("bigram", ["none", "fixed", "learned"])
def test_round_trip_to_the_bit(tmp_path: Path, bigram: str) -> None:
    model = small_model(bigram=bigram, positions="concatenated", d_pos=4)
    save_model(model, tmp_path / "deep" / "model")
    loaded = load_model(tmp_path / "deep" / "model")
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(loaded(random_tokens(2, 8)), model(random_tokens(2, 8)))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_damaged_and_missing_files_are_told(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: not readable as safetensors"):
        load_model(tmp_path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"model\.safetensors: not readable as safetensors"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: not readable as safetensors"):
        load_model(tmp_path)
    path.write_bytes(whole)
    load_model(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match=r"model\.json: no such file"):
        load_model(tmp_path)


def test_tensors_of_another_model_are_told(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path)
    card = read_json(tmp_path / "model.json")
    write_json(tmp_path / "model.json", card | {"config": card["config"] | {"d_mlp": 20}})
    told = r"differ from model.json: wrong shape: blocks.0.mlp.down.weight \[16, 24\] instead of \[16, 20\], "
    with pytest.raises(UserError, match=told):
        load_model(tmp_path)
    write_json(tmp_path / "model.json", card | {"config": card["config"] | {"depth": 20}})
    with pytest.raises(UserError, match=r"model.json.config.depth: unknown key; allowed: kind, n_layer"):
        load_model(tmp_path)
    write_json(tmp_path / "model.json", card)
    tensors = load_file(tmp_path / "model.safetensors")
    for wrong, told in (
        ({"extra": torch.zeros(1)}, "unknown: extra$"),
        ({"norm.weight": torch.zeros(3)}, r"wrong shape: norm.weight \[3\] instead of \[16\]$"),
        ({"norm.weight": torch.zeros(16).long()}, r"not dense floats: norm.weight \(int64\)$"),
        ({f"extra{i}": torch.zeros(1) for i in range(7)}, "unknown: extra0, .*, extra4 and 2 more$"),
    ):
        save_file(tensors | wrong, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=f"tensors differ from model.json: {told}"):
            load_model(tmp_path)
    del tensors["norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"tensors differ from model.json: missing: norm.weight$"):
        load_model(tmp_path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_is_told_with_its_tensor(tmp_path: Path, value: float) -> None:
    model = small_model()
    model.blocks[1].get_parameter("mlp.up.weight")[2, 3] = value
    save_model(model, tmp_path)
    told = r"model\.safetensors: numbers that are not finite: blocks\.1\.mlp\.up\.weight \(1 of 384\)$"
    with pytest.raises(UserError, match=told):
        load_model(tmp_path)


def test_count_weights_by_hand() -> None:
    # embedding 6, q k v 3·(2 + 1), out 2 + 2, up 4 + 2, down 4 + 2, unembedding 6 + 3
    # nonzero: five edges, all 6 embedded entries and 2 unembedded
    assert count_weights(micro_model()) == (40, 13)
