"""A tiny random GPT-2 of `transformers`, read from its folder: the library's logits, and what is refused."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.importers.gpt2 import read_gpt2
from sparsity_lab.model.checkpoints import count_weights, load_model, save_model
from sparsity_lab.model.sites import Site

TINY: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 12, "n_positions": 16, "vocab_size": 29}
Maker = Callable[..., Any]


@pytest.fixture
def save_gpt2(tmp_path: Path) -> Maker:
    """Saves a GPT-2 whose every tensor matters, biases and norms included, and returns it."""

    def save(**changes: Any) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        special = {"bos_token_id": None, "eos_token_id": None}
        model = GPT2LMHeadModel(GPT2Config(**(TINY | special | changes))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.5)
        model.save_pretrained(tmp_path)
        return model

    return save


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation_function": "gelu"},
        {"activation_function": "relu", "n_inner": 20},
        {"layer_norm_epsilon": 0.1},
        {"tie_word_embeddings": False},
    ],
)
@torch.no_grad()
def test_logits_and_residuals_are_the_librarys(
    save_gpt2: Maker, tmp_path: Path, changes: dict[str, Any]
) -> None:
    library, model = save_gpt2(**changes), read_gpt2(tmp_path)
    tokens_bt = torch.randint(29, (3, 16), generator=torch.Generator().manual_seed(0))
    residuals: dict[int, Tensor] = {}

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        if site is Site.RESID:
            residuals[layer] = x
        return x

    expected = library(tokens_bt, output_hidden_states=True)
    torch.testing.assert_close(model(tokens_bt, tap), expected.logits, rtol=0, atol=1e-4)
    for layer in range(2):  # the library's last hidden state is after the last norm
        torch.testing.assert_close(residuals[2 * layer], expected.hidden_states[layer], rtol=0, atol=1e-4)
    save_model(model, tmp_path / "saved")
    assert torch.equal(load_model(tmp_path / "saved")(tokens_bt), model(tokens_bt))


def test_tied_embeddings_count_once(save_gpt2: Maker, tmp_path: Path) -> None:
    library = save_gpt2()
    model = read_gpt2(tmp_path)
    norms = sum(p.numel() for name, p in library.named_parameters() if ".ln_" in name)
    total = sum(p.numel() for p in library.parameters()) - norms
    assert count_weights(model)[0] == total + 29  # GPT-2 has no final bias: ours, all zeros
    assert count_weights(model)[1] == total
    assert model.unembedding.weight is model.embedding.weight


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"activation_function": "tanh"},
            "activation_function: 'tanh': allowed: gelu_new, gelu_pytorch_tanh, gelu, relu, silu",
        ),
        ({"scale_attn_weights": False}, "scale_attn_weights: False: allowed: True"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: True: allowed: False"),
        ({"add_cross_attention": True}, "add_cross_attention: True: allowed: False"),
    ],
)
def test_what_a_transformer_does_not_do_is_refused(
    save_gpt2: Maker, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    save_gpt2(**changes)
    with pytest.raises(UserError, match=told):
        read_gpt2(tmp_path)


@pytest.mark.parametrize("lacking", [None, "transformer.h.1.ln_2.weight"])
def test_the_library_says_nothing_on_the_console(
    save_gpt2: Maker, tmp_path: Path, capfd: pytest.CaptureFixture[str], lacking: str | None
) -> None:
    save_gpt2(bos_token_id=50_000)
    if lacking:
        tensors = load_file(tmp_path / "model.safetensors")
        del tensors[lacking]
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    capfd.readouterr()
    with pytest.raises(UserError) if lacking else nullcontext():
        read_gpt2(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_folders_that_hold_no_whole_gpt2(save_gpt2: Maker, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json, so not a folder of a transformers model"):
        read_gpt2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1000000000}')
    with pytest.raises(UserError, match="n_layer: 1000000000: allowed: 1 to 1000"):
        read_gpt2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="model_type: 'llama': allowed: 'gpt2'"):
        read_gpt2(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable by transformers"):
        read_gpt2(tmp_path)
    save_gpt2()
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["transformer.h.1.ln_2.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    told = r"tensors differ from the config: missing: transformer\.h\.1\.ln_2\.weight$"
    with pytest.raises(UserError, match=told):
        read_gpt2(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no tensors; allowed: model\.safetensors or pytorch_model\.bin"):
        read_gpt2(tmp_path)


def change_tensors(folder: Path, changes: dict[str, Tensor]) -> None:
    tensors = load_file(folder / "model.safetensors") | changes
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_tensors_of_a_larger_model_are_refused_by_name(
    save_gpt2: Maker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_gpt2()
    expected = read_gpt2(tmp_path)
    masks = {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    masks["transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
    change_tensors(tmp_path, masks)
    tokens_bt = torch.arange(16)[None]
    assert torch.equal(read_gpt2(tmp_path)(tokens_bt), expected(tokens_bt))
    change_tensors(tmp_path, {"transformer.h.5.mlp.c_fc.weight": torch.zeros(12, 48)})
    capfd.readouterr()
    with pytest.raises(
        UserError, match=r"differ from the config: unknown: transformer\.h\.5\.mlp\.c_fc\.weight$"
    ):
        read_gpt2(tmp_path)
    assert capfd.readouterr() == ("", "")  # the library's own report stays off the console


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_number_that_is_not_finite_is_told_with_its_tensor(
    save_gpt2: Maker, tmp_path: Path, value: float
) -> None:
    save_gpt2()
    weight = load_file(tmp_path / "model.safetensors")["transformer.h.1.mlp.c_fc.weight"]
    weight[3, 4] = value
    change_tensors(tmp_path, {"transformer.h.1.mlp.c_fc.weight": weight})
    told = r"numbers that are not finite: transformer\.h\.1\.mlp\.c_fc\.weight \(1 of 576\)"
    with pytest.raises(UserError, match=told):
        read_gpt2(tmp_path)


@pytest.mark.parametrize("name", ["attn.c_attn.bias", "attn.c_attn.weight", "ln_1.bias", "mlp.c_proj.bias"])
def test_every_missing_tensor_is_told(save_gpt2: Maker, tmp_path: Path, name: str) -> None:
    """The library ignores a missing `c_attn.bias`, whose name resembles that of an old buffer."""
    save_gpt2()
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"transformer.h.1.{name}"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"missing: transformer\.h\.1\.{name}$"):
        read_gpt2(tmp_path)


@pytest.mark.parametrize("form", ["torch", "no prefix", "shards", "head only"])
def test_older_and_larger_forms_of_the_file(save_gpt2: Maker, tmp_path: Path, form: str) -> None:
    save_gpt2()
    tokens_bt = torch.arange(16)[None]
    expected = read_gpt2(tmp_path)(tokens_bt)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    if form == "torch":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    elif form == "no prefix":
        save_file({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, path)
    elif form == "head only":
        tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
        save_file(tensors, path)
    else:
        files = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(tensors)}
        for file in set(files.values()):
            save_file({name: tensors[name] for name in tensors if files[name] == file}, tmp_path / file)
        write_json(tmp_path / "model.safetensors.index.json", {"weight_map": files})
    assert torch.equal(read_gpt2(tmp_path)(tokens_bt), expected)


def test_an_index_that_names_no_files_is_told(save_gpt2: Maker, tmp_path: Path) -> None:
    save_gpt2()
    (tmp_path / "model.safetensors").unlink()
    indices: list[Any] = [[], {}, {"weight_map": {}}, {"weight_map": {"a": "../x"}}, {"weight_map": {"a": 1}}]
    for index in indices:
        write_json(tmp_path / "model.safetensors.index.json", index)
        with pytest.raises(
            UserError, match="weight_map: allowed: an object of tensor: file in the same folder"
        ):
            read_gpt2(tmp_path)


def test_a_mask_that_is_not_causal_is_told(save_gpt2: Maker, tmp_path: Path) -> None:
    save_gpt2()
    change_tensors(tmp_path, {"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16)})
    with pytest.raises(UserError, match=r"transformer\.h\.0\.attn\.bias: not a causal mask"):
        read_gpt2(tmp_path)
