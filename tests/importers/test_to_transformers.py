"""Exported models in `transformers`: logits, padding, `generate`, tied weights, and the tokenizer's ids."""

from pathlib import Path
from typing import Any

import pytest
import torch
from micro import random_tokens, small_model

from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tokenizer import PATTERN, Tokenizer, checked_tokenizer, train_bpe
from sparsity_lab.data.tokenizer_check import SAMPLE
from sparsity_lab.data.tokenizer_folder import GPT2_PATTERN, read_folder
from sparsity_lab.data.tokenizer_library import write_library
from sparsity_lab.importers.to_transformers import write_for_transformers
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.model.config import RotaryScaling
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import Record, at_site, with_residuals
from sparsity_lab.model.transformer import Transformer

PLAIN: dict[str, Any] = {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"}
LLAMA = PLAIN | {"gated_mlp": True, "positions": "rotary", "activation": "silu"}
VARIANTS: list[dict[str, Any]] = [
    {},  # AbsTopK, a sink, a fixed bigram table, no positions
    PLAIN,
    PLAIN | {"positions": "learned", "norm": "layer", "activation": "gelu_tanh", "tied_embeddings": True},
    {"positions": "concatenated", "d_pos": 4, "bigram": "learned", "norm": "layer", "norm_bias": False},
    {"residual_activation": "relu", "residual_sites": ("resid_post_mlp",), "activation": "relu"},
    {"activation_sites": (Site.MLP_NEURON,), "n_head": 3, "bias": False, "norm_eps": 0.1},
    LLAMA,
    LLAMA | {"attention_sink": True, "rotary_scaling": RotaryScaling(kind="linear", factor=2.0)},
    LLAMA
    | {
        "rotary_scaling": RotaryScaling(kind="llama3", factor=8.0, original_n_ctx=12),
        "rotary_theta": 40.0,
    },
]
TEXTS = [f"def area_{i}(width, height):\n    return width * {i} + height\n\n\n" for i in range(50)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 300)


@pytest.fixture(autouse=True)
def _code_beside_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library copies remote code to a folder of the user's."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def exported(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    save_model(model, folder)
    write_for_transformers(model.config, model.vocab_size, tokenizer, folder)
    library = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(library).__module__.startswith("transformers_modules")
    return library.eval()


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@torch.no_grad()
def test_logits_are_the_same_with_and_without_padding_and_with_a_cache(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = small_model(**changes)
    library = exported(model, tokenizer, tmp_path / "out")
    tokens_bt = torch.randint(11, (3, 12), generator=torch.Generator().manual_seed(0))
    expected_btv = model(tokens_bt)
    found = library(tokens_bt, output_hidden_states=True, labels=tokens_bt)
    torch.testing.assert_close(found.logits, expected_btv, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.loss, model.loss(tokens_bt[:, :-1], tokens_bt[:, 1:]))
    assert len(found.hidden_states) == model.config.n_layer + 1
    torch.testing.assert_close(library(tokens_bt, logits_to_keep=2).logits, expected_btv[:, -2:])

    padded_bt = torch.cat([torch.full((3, 4), 7), tokens_bt[:, :8]], 1)
    mask_bt = (torch.arange(12) >= 4).long().expand(3, -1)
    left_btv = library(padded_bt, attention_mask=mask_bt).logits[:, 4:]
    torch.testing.assert_close(left_btv, expected_btv[:, :8], rtol=0, atol=1e-4)

    first = library(tokens_bt[:, :5], use_cache=True)
    rest = library(tokens_bt[:, 5:], past_key_values=first.past_key_values)
    torch.testing.assert_close(rest.logits, expected_btv[:, 5:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, LLAMA, {"positions": "rotary"}], ids=["sparse", "llama", "both"])
@torch.no_grad()
def test_forward_hooks_see_and_change_what_taps_do(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Every site is a module under its own name; the stream has three in each layer."""
    model, tokens_bt = small_model(**changes), random_tokens(2, 9)
    library = exported(model, tokenizer, tmp_path / "out")
    record = Record({*model.config.node_sites, Site.ATTN_PATTERN})
    _, streams = with_residuals(model, tokens_bt, record)
    expected = {
        f"blocks.{layer}.{'attention' if site.startswith('attn') else 'mlp'}.{site}": x
        for (site, layer), x in record.values.items()
    }
    names = ("resid_pre_attn", "resid_post_attn", "resid_post_mlp")
    for layer in range(2):
        expected |= {f"blocks.{layer}.{name}": streams[2 * layer + i] for i, name in enumerate(names)}
    found: dict[str, Any] = {}
    hooks = [
        library.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output})
        )
        for name in expected
    ]
    library(tokens_bt)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=0, atol=1e-4)
    for hook in hooks:
        hook.remove()
    library.blocks[1].mlp.mlp_neuron.register_forward_hook(lambda module, inputs, output: output * 0)
    zeroed_btv = model(tokens_bt, at_site(Site.MLP_NEURON, 1, torch.zeros_like))
    torch.testing.assert_close(library(tokens_bt).logits, zeroed_btv, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, LLAMA], ids=["sparse", "llama"])
@torch.no_grad()
def test_generate_continues_as_the_model_does(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = small_model(**changes)
    library = exported(model, tokenizer, tmp_path / "out")
    tokens_bt = torch.tensor([[1, 2, 3]])
    for _ in range(6):
        tokens_bt = torch.cat([tokens_bt, model(tokens_bt)[:, -1:].argmax(-1)], 1)
    for use_cache in (True, False):
        found_bt = library.generate(
            tokens_bt[:, :3], attention_mask=torch.ones(1, 3), max_new_tokens=6, do_sample=False,
            use_cache=use_cache,
        )  # fmt: skip
        assert found_bt.tolist() == tokens_bt.tolist()


def test_the_folder_is_still_one_of_ours_and_saved_again_one_of_the_librarys(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model, out = small_model(tied_embeddings=True), tmp_path / "out"
    library = exported(model, tokenizer, out)
    assert library.unembedding.weight is library.embedding.weight
    tokens_bt = torch.arange(9)[None]
    assert torch.equal(load_model(out)(tokens_bt), model(tokens_bt))
    library.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert torch.equal(again.eval()(tokens_bt).logits, library(tokens_bt).logits)


def test_what_the_model_cannot_do_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    library = exported(small_model(positions="learned"), tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="13 tokens, but the context is 12"):
        library(torch.ones(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match=r"attention_mask: \(1, 5\): allowed: \(batch, all keys\)"):
        library(torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 5))


@pytest.mark.parametrize("pattern", [PATTERN, GPT2_PATTERN])
def test_the_tokenizer_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path, pattern: str) -> None:
    from transformers import AutoTokenizer

    ranks = tokenizer.encoding._mergeable_ranks
    ours = checked_tokenizer(pattern, ranks, tokenizer.encoding._special_tokens, "test")
    write_library(ours, tmp_path, 12)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*SAMPLE, *TEXTS[:3]):
        assert theirs(text)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert set(theirs("a b")) == {"input_ids", "attention_mask"}
    assert theirs.eos_token_id == ours.end_of_text
    assert read_folder(tmp_path).encode(TEXTS[0]) == ours.encode(TEXTS[0])


def test_a_pattern_that_the_library_cannot_read_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ranks = tokenizer.encoding._mergeable_ranks
    specials = tokenizer.encoding._special_tokens
    odd = checked_tokenizer(r"(?R)x|\s|\S+", ranks, specials, "test")
    with pytest.raises(UserError, match="the tokenizers library cannot read the pattern"):
        write_library(odd, tmp_path, 12)
