"""The released layout: every switch against a plain forward pass, round trips, and what is refused.

`reference` follows the released code's forward pass from its own names alone, so that it shares nothing with
the transformer under test. Parity with what the released code itself computed is in test_parity.py.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import small_model
from torch import Tensor

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.importers.released import CONFIG, TENSORS, hook_name, read_released, write_released
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import Transformer

RELEASED = Path(__file__).parents[1] / "fixtures" / "released"
EVERYWHERE = "attn_in,attn_out,mlp_in,mlp_out,mlp_neuron,attn_q,attn_k,attn_v"
CARD: dict[str, Any] = {
    "block_size": 10,
    "vocab_size": 13,
    "n_layer": 2,
    "n_head": 3,
    "d_head": 4,
    "d_model": 18,
    "d_mlp": 22,
    "rms_norm": True,
    "tied_unembed": False,
    "afrac": 0.3,
    "afrac_loctypes": EVERYWHERE,
    "sink": True,
    "enable_bigram_table": True,
    "learnable_bigram_table": True,
}
SWITCHES: dict[str, dict[str, Any]] = {
    "as the paper": {},
    "layer norm": {"rms_norm": False},
    "layer norm without bias": {"rms_norm": False, "ln_bias": False},
    "no activation sparsity": {"afrac": None},
    "all activations": {"afrac": 1.0},
    "a few places": {"afrac_loctypes": "mlp_neuron,attn_k"},
    "no place": {"afrac_loctypes": ""},
    "places of the stream": {"afrac_loctypes": "resid_post_attn,mlp_out,resid_post_mlp"},
    "one place of the stream": {"afrac_loctypes": "resid_post_mlp"},
    "a share that rounds up": {"afrac": 0.33},
    "tied": {"tied_unembed": True},
    "no bigram table": {"enable_bigram_table": False},
    "fixed bigram table": {"learnable_bigram_table": False},
    "positions beside": {"d_pos_emb": 6},
    "positions beside, layer norm": {"d_pos_emb": 7, "rms_norm": False},
    "sinusoidal positions beside": {"d_pos_emb": 6, "sinusoidal_cat_pos_emb": True},
    "no sink": {"sink": False},
    "relu": {"activation_type": "relu"},
    "residual relu": {"residual_activation_type": "relu"},
    "residual relu, then thinned": {
        "residual_activation_type": "relu",
        "afrac_loctypes": "resid_post_attn,resid_post_mlp",
    },
    "no biases": {"bias": False},
    "n_mlp": {"d_mlp": None, "n_mlp": 20},
    "d_head of its own": {"d_head": None, "d_mlp": None},
    "dropout is for training": {"dropout": 0.5, "dropout_cat_pos_emb": True, "d_pos_emb": 6},
    "keys that the release carries along": {"pfrac": 0.1, "bigram_table_rank": None, "flash": False},
}


def card_of(changes: dict[str, Any]) -> dict[str, Any]:
    card = CARD | changes
    if "n_mlp" in card:
        del card["d_mlp"]
    return card


def folder_of(path: Path, card: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Write a folder of random weights, and return them."""
    generator = torch.Generator().manual_seed(seed)
    d, pos, vocab = card["d_model"], card.get("d_pos_emb"), card["vocab_size"]
    inner = card["n_head"] * (card["d_head"] or d // card["n_head"])
    mlp = card.get("n_mlp") or card["d_mlp"] or 4 * d
    tensors: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        scale = 1.5 / math.sqrt(shape[-1]) if len(shape) > 1 else 1.0
        tensors[name] = scale * torch.randn(shape, generator=generator)

    def norm(name: str, width: int) -> None:
        add(f"{name}.weight", width)
        if not card["rms_norm"] and card.get("ln_bias", True):
            add(f"{name}.bias", width)

    def linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        if card.get("bias", True):
            add(f"{name}.bias", outputs)

    add("final_logits_bias", vocab)
    if card["enable_bigram_table"]:
        add("bigram_table", vocab, vocab)
    add("lm_head.weight", vocab, d)
    add("transformer.wte.weight", vocab, d)
    if card["tied_unembed"]:
        tensors["transformer.wte.weight"] = tensors["lm_head.weight"]
    add("transformer.wpe.weight", card["block_size"], pos or d)
    norm("transformer.ln_f", d)
    for layer in range(card["n_layer"]):
        block = f"transformer.h.{layer}."
        for index in (1, 2):
            norm(f"{block}ln_{index}", d)
            if pos:
                norm(f"{block}ln_p{index}", pos)
        if card["sink"]:
            add(f"{block}attn.attn_imp.sink_logit", card["n_head"])
        linear(f"{block}attn.c_attn", d + (pos or 0), 3 * inner)
        linear(f"{block}attn.c_proj", inner, d)
        linear(f"{block}mlp.c_fc", d + (pos or 0), mlp)
        linear(f"{block}mlp.c_proj", mlp, d)
    path.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path / TENSORS)
    write_json(path / CONFIG, card)
    return tensors


def reference(card: dict[str, Any], tensors: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Logits and every hooked activation, sequence by sequence and head by head."""
    seen: dict[str, Tensor] = {}
    places = card["afrac_loctypes"].split(",")

    def thin(x: Tensor, place: str) -> Tensor:
        if card["afrac"] is None or place not in places:
            return x
        kept = torch.topk(x.abs(), int(card["afrac"] * x.shape[-1])).indices
        return x * torch.zeros_like(x).scatter(-1, kept, 1.0)

    def norm(x: Tensor, name: str) -> Tensor:
        if card["rms_norm"]:
            x = x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
            return x * tensors[f"{name}.weight"]
        centred = x - x.mean(-1, keepdim=True)
        x = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * tensors[f"{name}.weight"] + tensors.get(f"{name}.bias", torch.zeros(()))

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", torch.zeros(()))

    def read(x: Tensor, block: str, index: int) -> Tensor:
        x = norm(x, f"{block}ln_{index}")
        if card.get("d_pos_emb") is None:
            return x
        beside = norm(positions, f"{block}ln_p{index}")
        return torch.cat([x, beside.expand(len(x), *beside.shape)], -1)

    def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> Tensor:
        heads, (time, width) = card["n_head"], (q.shape[1], q.shape[2] // card["n_head"])
        mixed = torch.zeros_like(q)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            for now in range(time):
                scores = (k[:, : now + 1, own] @ q[:, now, own, None])[..., 0] / math.sqrt(width)
                weights = scores.exp()
                total = weights.sum(-1, keepdim=True) + (0 if sinks is None else sinks[head].exp())
                mixed[:, now, own] = ((weights / total)[:, None] @ v[:, : now + 1, own])[:, 0]
        return mixed

    def join(x: Tensor, place: str) -> Tensor:
        return thin(x.clamp(min=0) if card.get("residual_activation_type") == "relu" else x, place)

    positions = tensors["transformer.wpe.weight"][: tokens.shape[1]]
    x = tensors["transformer.wte.weight"][tokens]
    x = x if card.get("d_pos_emb") else x + positions
    for layer in range(card["n_layer"]):
        block = f"transformer.h.{layer}."
        seen[f"{layer}.resid_in"] = x
        seen[f"{layer}.attn.act_in"] = thin(read(x, block, 1), "attn_in")
        parts = linear(seen[f"{layer}.attn.act_in"], f"{block}attn.c_attn").chunk(3, -1)
        q, k, v = (thin(part, f"attn_{name}") for part, name in zip(parts, "qkv", strict=True))
        seen |= {f"{layer}.attn.q": q, f"{layer}.attn.k": k, f"{layer}.attn.v": v}
        mixed = attend(q, k, v, tensors.get(f"{block}attn.attn_imp.sink_logit"))
        seen[f"{layer}.attn.resid_delta"] = thin(linear(mixed, f"{block}attn.c_proj"), "attn_out")
        x = join(x + seen[f"{layer}.attn.resid_delta"], "resid_post_attn")
        seen[f"{layer}.resid_mid"] = x
        seen[f"{layer}.mlp.act_in"] = thin(read(x, block, 2), "mlp_in")
        neurons = linear(seen[f"{layer}.mlp.act_in"], f"{block}mlp.c_fc")
        relu = card.get("activation_type") == "relu"
        neurons = neurons.clamp(min=0) if relu else neurons * 0.5 * (1 + torch.erf(neurons / math.sqrt(2)))
        seen[f"{layer}.mlp.post_act"] = thin(neurons, "mlp_neuron")
        written = linear(seen[f"{layer}.mlp.post_act"], f"{block}mlp.c_proj")
        seen[f"{layer}.mlp.resid_delta"] = thin(written, "mlp_out")
        x = join(x + seen[f"{layer}.mlp.resid_delta"], "resid_post_mlp")
    seen["final_resid"] = x
    logits = norm(x, "transformer.ln_f") @ tensors["lm_head.weight"].T
    logits = logits + tensors.get("final_logits_bias", torch.zeros(()))
    seen["logits"] = logits + tensors["bigram_table"][tokens] if card["enable_bigram_table"] else logits
    return seen


def everything(model: Transformer, tokens: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen[hook_name(site, layer, model.config.n_layer)] = x
        return x

    return {"logits": model(tokens, tap)} | seen


def some_tokens(card: dict[str, Any]) -> Tensor:
    return torch.randint(card["vocab_size"], (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_matches_a_plain_forward_pass(tmp_path: Path, name: str) -> None:
    card = card_of(SWITCHES[name])
    tensors = folder_of(tmp_path, card)
    tokens = some_tokens(card)
    found, expected = everything(read_released(tmp_path), tokens), reference(card, tensors, tokens)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_type": "relu"},
        {"residual_activation_type": "relu"},
        {"afrac": None},
        {"afrac_loctypes": "attn_in"},
        {"afrac_loctypes": f"{EVERYWHERE},resid_post_attn"},
        {"afrac_loctypes": f"{EVERYWHERE},resid_post_mlp"},
        {"afrac": 0.33},
    ],
)
def test_a_switch_alone_changes_the_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Else the test above could pass with weights at which the switch does not matter."""
    folder_of(tmp_path, CARD)
    logits = read_released(tmp_path)(some_tokens(CARD))
    write_json(tmp_path / CONFIG, CARD | changes)
    assert not torch.allclose(read_released(tmp_path)(some_tokens(CARD)), logits, atol=1e-2)


@pytest.mark.parametrize("name", SWITCHES)
def test_round_trip_is_exact(tmp_path: Path, name: str) -> None:
    card = card_of(SWITCHES[name])
    tensors = folder_of(tmp_path / "theirs", card)
    model = read_released(tmp_path / "theirs")
    write_released(model, tmp_path / "ours")
    written = torch.load(tmp_path / "ours" / TENSORS, weights_only=True)
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in tensors.items())
    again = read_released(tmp_path / "ours")
    assert again.config == model.config
    save_model(model, tmp_path / "saved")
    tokens = some_tokens(card)
    assert torch.equal(again(tokens), model(tokens))
    assert torch.equal(load_model(tmp_path / "saved")(tokens), model(tokens))


def test_missing_keys_mean_what_they_mean_to_the_released_code(tmp_path: Path) -> None:
    sizes = ("block_size", "vocab_size", "n_layer", "n_head", "d_model")
    card = {key: CARD[key] for key in sizes}
    defaults: dict[str, Any] = {
        "d_head": None,
        "d_mlp": None,
        "rms_norm": False,
        "tied_unembed": True,
        "afrac": None,
        "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
        "sink": False,
        "enable_bigram_table": False,
    }
    tensors = folder_of(tmp_path, card | defaults)
    write_json(tmp_path / CONFIG, card)
    tokens = some_tokens(card)
    expected = reference(card | defaults, tensors, tokens)
    torch.testing.assert_close(everything(read_released(tmp_path), tokens), expected, rtol=0, atol=1e-4)
    write_json(tmp_path / CONFIG, {})
    with pytest.raises(UserError, match=r"final_model\.pt: "):  # a GPT-2 of the default size, these are not
        read_released(tmp_path)


def test_files_from_slow_attention_and_without_a_final_bias(tmp_path: Path) -> None:
    tensors = folder_of(tmp_path, CARD)
    tokens = some_tokens(CARD)
    mask = torch.ones(10, 10).tril()[None, None]
    del tensors["final_logits_bias"]
    torch.save(tensors | {f"transformer.h.{layer}.attn.bias": mask for layer in range(2)}, tmp_path / TENSORS)
    found = read_released(tmp_path)(tokens)
    torch.testing.assert_close(found, reference(CARD, tensors, tokens)["logits"], rtol=0, atol=1e-4)
    torch.save(tensors | {"transformer.h.1.attn.bias": mask + 1}, tmp_path / TENSORS)
    with pytest.raises(UserError, match=r"transformer\.h\.1\.attn\.bias: not a causal mask"):
        read_released(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rotary": True}, "beeg_config.json.rotary: unknown key; allowed: block_size, vocab_size"),
        ({"activation_type": "silu"}, "activation_type: 'silu': input should be 'gelu' or 'relu'"),
        ({"residual_activation_type": "gelu"}, "residual_activation_type: 'gelu': input should be"),
        ({"afrac_loctypes": "attn_in, attn_out"}, "afrac_loctypes: ' attn_out': allowed: attn_in, attn_q"),
        ({"afrac": 0.0}, "activation_fraction 0.0 must be above 0 and at most 1"),
        ({"afrac": 0.05}, "activation_fraction 0.05 keeps nothing of attn_in, 18 wide"),
        ({"use_tied_aux_matrix": True}, "use_tied_aux_matrix: True: input should be False"),
        ({"n_mlp": 24}, "n_mlp 24 and d_mlp 22 are one size by two names"),
        ({"n_layer": "2"}, "n_layer: '2': input should be a valid integer"),
        ({"d_mlp": 24}, "wrong shape: transformer.h.0.mlp.c_fc.bias [22] instead of [24]"),
        ({"sink": False}, "unknown: transformer.h.0.attn.attn_imp.sink_logit"),
        ({"rms_norm": False}, "missing: transformer.h.0.ln_1.bias"),
        ({"tied_unembed": True}, "embeddings are tied, but transformer.wte.weight is not lm_head.weight"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    folder_of(tmp_path, CARD)
    write_json(tmp_path / CONFIG, CARD | changes)
    with pytest.raises(UserError) as caught:
        read_released(tmp_path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_damaged_and_missing_files_are_told(tmp_path: Path) -> None:
    folder_of(tmp_path, CARD)
    whole = (tmp_path / TENSORS).read_bytes()
    for content in (whole[:-100], b"nonsense", b""):
        (tmp_path / TENSORS).write_bytes(content)
        with pytest.raises(UserError, match=r"final_model\.pt: not readable by torch"):
            read_released(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / TENSORS)
    with pytest.raises(UserError, match=r"final_model\.pt: must be a dict of tensors"):
        read_released(tmp_path)
    torch.save({"evil": Path("x")}, tmp_path / TENSORS)  # an object, which weights_only does not build
    with pytest.raises(UserError, match=r"final_model\.pt: not readable by torch"):
        read_released(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(UserError, match=r"final_model\.pt: not readable by torch"):
        read_released(tmp_path)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(UserError, match="must be one JSON object"):
        read_released(tmp_path)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(UserError, match=r"beeg_config\.json: no such file"):
        read_released(tmp_path)


@pytest.mark.parametrize(
    "changes", [{}, {"positions": "learned", "bigram": "learned"}, {"tied_embeddings": True}]
)
def test_a_model_trained_here_goes_into_the_layout_and_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    write_released(model, tmp_path)
    back = read_released(tmp_path)
    tokens = torch.arange(9)[None]
    assert torch.equal(back(tokens), model(tokens))
    if not changes:
        card, tensors = read_json(tmp_path / CONFIG), torch.load(tmp_path / TENSORS, weights_only=True)
        expected = reference(card, tensors, tokens)["logits"]
        torch.testing.assert_close(back(tokens), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"activation": "gelu_tanh"}, "activation: gelu_tanh: cannot be expressed in the released layout"),
        ({"norm_eps": 1e-6}, "norm_eps: 1e-06: cannot be expressed in the released layout"),
        ({"n_head": 3}, "n_head: 3: cannot be expressed in the released layout"),
    ],
)
def test_what_the_layout_cannot_say_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        write_released(small_model(**changes), tmp_path)
    assert not list(tmp_path.iterdir())
