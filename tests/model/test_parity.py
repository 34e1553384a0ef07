"""Parity with an outside reference: two models of the released code, with every activation it computed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparsity_lab.core.files import read_json
from sparsity_lab.importers.released import CONFIG, TENSORS, hook_name, read_released, write_released
from sparsity_lab.model.sites import Site

RELEASED = Path(__file__).parents[1] / "fixtures" / "released"


@pytest.mark.parametrize("name", ["sink_bigram", "no_sink"])
def test_logits_loss_and_every_activation_match_the_released_code(name: str) -> None:
    model, expected = read_released(RELEASED / name), load_file(RELEASED / name / "expected.safetensors")
    seen: dict[str, Tensor] = {}

    def tap(site: Site, layer: int, x: Tensor) -> Tensor:
        seen[f"act.{hook_name(site, layer, model.config.n_layer)}"] = x
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


@pytest.mark.parametrize("name", ["sink_bigram", "no_sink"])
def test_round_trip_of_the_released_files(tmp_path: Path, name: str) -> None:
    write_released(read_released(RELEASED / name), tmp_path)
    written, theirs = (torch.load(f / TENSORS, weights_only=True) for f in (tmp_path, RELEASED / name))
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in theirs.items())
    card, their_card = read_json(tmp_path / CONFIG), read_json(RELEASED / name / CONFIG)
    their_card["d_mlp"] = their_card.pop("n_mlp", their_card.get("d_mlp"))
    places = (set(c.pop("afrac_loctypes").split(",")) for c in (card, their_card))
    assert next(places) == next(places)
    assert {k: v for k, v in their_card.items() if k in card} == {k: card[k] for k in card if k in their_card}
    assert card["sink"] == their_card.get("sink", False)
