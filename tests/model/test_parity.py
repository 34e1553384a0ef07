"""Parity with an outside reference: two models of the released code, with every activation it computed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparsity_lab.model.sites import Site
from sparsity_lab.model.transformer import ModelConfig, Transformer

RELEASED = Path(__file__).parents[1] / "fixtures" / "released"
SITES = {
    "attn_in": "attn.act_in",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_out": "attn.resid_delta",
    "mlp_in": "mlp.act_in",
    "mlp_neuron": "mlp.post_act",
    "mlp_out": "mlp.resid_delta",
}


def released_model(folder: Path) -> Transformer:
    """The model that the released code saved, under our names."""
    theirs = torch.load(folder / "final_model.pt", weights_only=True)
    card = json.loads((folder / "beeg_config.json").read_text())
    sink = card.get("sink", False)
    config = ModelConfig(
        n_layer=card["n_layer"],
        d_model=card["d_model"],
        n_ctx=card["block_size"],
        n_head=card["n_head"],
        d_head=card["d_head"],
        d_mlp=card.get("d_mlp", card.get("n_mlp")),
        activation_fraction=card["afrac"],
        activation_sites=tuple(Site(name) for name in card["afrac_loctypes"].split(",")),
        attention_sink=sink,
        bigram="learned",
        positions="learned",
    )
    ours = {
        "bigram": theirs["bigram_table"],
        "embedding.weight": theirs["transformer.wte.weight"],
        "positions.weight": theirs["transformer.wpe.weight"],
        "norm.weight": theirs["transformer.ln_f.weight"],
        "unembedding.weight": theirs["lm_head.weight"],
        "unembedding.bias": theirs["final_logits_bias"],
    }
    for layer in range(config.n_layer):
        block, their = f"blocks.{layer}.", f"transformer.h.{layer}."
        ours[block + "attention.read.norm.weight"] = theirs[their + "ln_1.weight"]
        ours[block + "mlp.read.norm.weight"] = theirs[their + "ln_2.weight"]
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", theirs[f"{their}attn.c_attn.{kind}"].chunk(3), strict=True):
                ours[f"{block}attention.{name}.{kind}"] = part
            for name, of in (
                ("attention.out", "attn.c_proj"),
                ("mlp.up", "mlp.c_fc"),
                ("mlp.down", "mlp.c_proj"),
            ):
                ours[f"{block}{name}.{kind}"] = theirs[f"{their}{of}.{kind}"]
        if sink:
            ours[block + "attention.sink"] = theirs[their + "attn.attn_imp.sink_logit"]
    model = Transformer(config, card["vocab_size"])
    model.load_state_dict(ours, strict=True)
    return model.eval().requires_grad_(False)


def their_name(site: Site, layer: int, n_layer: int) -> str:
    if site is not Site.RESID:
        return f"act.{layer}.{SITES[site.value]}"
    return "act.final_resid" if layer == 2 * n_layer else f"act.{layer // 2}.resid_{('in', 'mid')[layer % 2]}"


@pytest.mark.parametrize("name", ["sink_bigram", "no_sink"])
def test_logits_loss_and_every_activation_match_the_released_code(name: str) -> None:
    model, expected = released_model(RELEASED / name), load_file(RELEASED / name / "expected.safetensors")
    seen: dict[str, Tensor] = {}

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen[their_name(site, layer, model.config.n_layer)] = x
        return x

    logits_btv = model(expected["tokens"], tap)
    torch.testing.assert_close(logits_btv, expected["logits"], rtol=0, atol=1e-4)
    loss = cross_entropy(logits_btv.flatten(0, 1), expected["targets"].flatten())
    torch.testing.assert_close(loss, expected["loss"][0], rtol=0, atol=1e-4)
    theirs = {  # attn.y, the mixed values, is no site
        key: x for key, x in expected.items() if key.startswith("act.") and not key.endswith("attn.y")
    }
    assert seen.keys() == theirs.keys()
    torch.testing.assert_close(seen, theirs, rtol=0, atol=1e-4)  # tells the key
