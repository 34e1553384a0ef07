"""Tiny random Llama-like models of `transformers`, read from their folders: their logits, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsity_lab.importers.llama import read_llama
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.model.taps import with_residuals

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
