"""Tiny random Llama-like models of `transformers`, read from their folders: their logits, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.importers.llama import read_llama
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import Record, with_residuals

TINY: dict[str, Any] = {
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 16},
    **{"intermediate_size": 20, "max_position_embeddings": 24, "vocab_size": 29},
    **{"bos_token_id": None, "eos_token_id": None},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 50.0, "factor": 4.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 12},
}
Maker = Callable[..., Any]


def tiny(kind: str = "Llama", **changes: Any) -> Any:
    """A random model whose every tensor matters, biases and norms included."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(TINY | changes))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


@pytest.fixture
def save_llama(tmp_path: Path) -> Maker:
    """Saves a tiny model and returns it."""

    def save(kind: str = "Llama", **changes: Any) -> Any:
        model = tiny(kind, **changes)
        model.save_pretrained(tmp_path)
        return model

    return save


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"tie_word_embeddings": True}),
        ("Llama", {"num_key_value_heads": 2}),
        ("Llama", {"num_key_value_heads": 1, "head_dim": 6, "rms_norm_eps": 0.1}),
        ("Llama", {"attention_bias": True}),
        ("Llama", {"mlp_bias": True, "hidden_act": "gelu"}),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 30.0}}),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 30.0, "factor": 3.0}}),
        ("Llama", {"rope_parameters": LLAMA3}),
        ("Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
    ],
    ids=str,
)
@torch.no_grad()
def test_logits_and_residuals_are_the_librarys(
    save_llama: Maker, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    library, model = save_llama(kind, **changes), read_llama(tmp_path)
    tokens_bt = torch.randint(29, (3, 24), generator=torch.Generator().manual_seed(0))
    expected = library(tokens_bt, output_hidden_states=True)
    logits_btv, streams = with_residuals(model, tokens_bt)
    torch.testing.assert_close(logits_btv, expected.logits, rtol=0, atol=1e-4)
    for layer in range(2):  # the library's last hidden state is after the last norm
        torch.testing.assert_close(streams[2 * layer], expected.hidden_states[layer], rtol=0, atol=1e-4)
    last_b = torch.tensor([23, 3, 11])
    torch.testing.assert_close(model(tokens_bt, position_b=last_b), logits_btv[range(3), last_b])
    save_model(model, tmp_path / "saved")
    assert torch.equal(load_model(tmp_path / "saved")(tokens_bt), model(tokens_bt))


@torch.no_grad()
def test_every_head_has_its_own_copy_of_its_groups_keys_and_values(save_llama: Maker, tmp_path: Path) -> None:
    library, model = save_llama(num_key_value_heads=2), read_llama(tmp_path)
    record = Record({Site.ATTN_V})
    model(torch.arange(20)[None], record)
    v_thk = record.values[Site.ATTN_V, 1][0].unflatten(-1, (4, 4))
    assert torch.equal(v_thk[:, 0], v_thk[:, 1])
    assert torch.equal(v_thk[:, 2], v_thk[:, 3])
    assert not torch.allclose(v_thk[:, 1], v_thk[:, 2])
    block: Any = model.blocks[1]
    assert torch.equal(block.attention.k.weight[4:8], library.model.layers[1].self_attn.k_proj.weight[:4])


def test_the_context_ends_with_the_sliding_window(save_llama: Maker, tmp_path: Path) -> None:
    library, model = save_llama("Mistral", sliding_window=7), read_llama(tmp_path)
    assert model.config.n_ctx == 7
    tokens_bt = torch.arange(7)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens_bt), library(tokens_bt).logits, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="8 tokens, but the context is 7"):
        model(torch.arange(8)[None])


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 8}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"hidden_act": "tanh"},
            "hidden_act: 'tanh': allowed: gelu_new, gelu_pytorch_tanh, gelu, relu, sil",
        ),
        ({"num_hidden_layers": 5000}, "num_hidden_layers: 5000: allowed: 1 to 1000"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3: allowed: a divisor of 4"),
        ({"model_type": "gpt2"}, "model_type: 'gpt2': allowed: 'llama', 'mistral', 'qwen2'"),
        ({"rope_parameters": YARN}, "rope_parameters.rope_type: 'yarn': allowed: default, linear, llama3"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor: 0.5: allowed: 1.0",
        ),
        (
            {"intermediate_size": 12},
            "differ from the config: wrong shape: model.layers.0.mlp.down_proj",
        ),
        ({"attention_bias": True}, "missing: model.layers.0.self_attn.k_proj.bias"),
        (
            {"num_key_value_heads": 2},
            r"layers.0.self_attn.k_proj.weight \[16, 16\] instead of \[8, 16\]",
        ),
    ],
)
def test_what_a_transformer_does_not_do_is_refused(
    save_llama: Maker, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    save_llama()
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | changes)
    with pytest.raises(UserError, match=told):
        read_llama(tmp_path)


def change_tensors(folder: Path, changes: dict[str, Tensor], without: str = "") -> None:
    tensors = load_file(folder / "model.safetensors") | changes
    tensors.pop(without, None)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_damaged_tensors_are_told_by_name(save_llama: Maker, tmp_path: Path) -> None:
    save_llama()
    norm = "model.layers.1.input_layernorm.weight"
    expected = read_llama(tmp_path)
    change_tensors(tmp_path, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)})
    tokens_bt = torch.arange(9)[None]
    assert torch.equal(read_llama(tmp_path)(tokens_bt), expected(tokens_bt))  # older versions saved these
    change_tensors(tmp_path, {norm: torch.full((16,), torch.nan)})
    with pytest.raises(UserError, match=rf"numbers that are not finite: {norm} \(16 of 16\)"):
        read_llama(tmp_path)
    change_tensors(tmp_path, {"model.layers.0.self_attn.q_norm.weight": torch.ones(4)})
    with pytest.raises(UserError, match=r"unknown: model\.layers\.0\.self_attn\.q_norm\.weight"):
        read_llama(tmp_path)
    change_tensors(tmp_path, {}, without=norm)
    with pytest.raises(UserError, match=f"missing: {norm}"):
        read_llama(tmp_path)


def test_tied_embeddings_that_differ_are_told(save_llama: Maker, tmp_path: Path) -> None:
    save_llama(tie_word_embeddings=True)
    model = read_llama(tmp_path)
    assert model.unembedding.weight is model.embedding.weight
    change_tensors(tmp_path, {"lm_head.weight": torch.zeros(29, 16)})
    told = r"embeddings are tied, but model\.embed_tokens\.weight is not lm_head"
    with pytest.raises(UserError, match=told):
        read_llama(tmp_path)
