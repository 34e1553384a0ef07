"""The bridge of docs/other_tools.md, if TransformerLens is installed; no extra of this package has it."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import small_model

from sparsity_lab.data.tokenizer import train_bpe
from sparsity_lab.importers.to_transformers import write_for_transformers
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import Record, at_site, with_residuals
from sparsity_lab.model.transformer import Transformer

pytest.importorskip("transformer_lens")
pytestmark = pytest.mark.filterwarnings("default")  # of TransformerLens's own
SCRIPT = Path(__file__).parents[2] / "docs" / "transformer_lens_bridge.py"


@pytest.mark.parametrize("changes", [{}, {"gated_mlp": True, "positions": "rotary"}], ids=["paper", "llama"])
@torch.no_grad()
def test_logits_caches_and_hooks_are_those_of_the_model(
    tmp_path: Path, changes: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    small = small_model(**changes)
    model = Transformer(small.config, 300).eval()
    save_model(model, tmp_path / "out")
    tokenizer = train_bpe([f"def area_{i}(width):\n    return width * {i}\n" for i in range(50)], 300)
    write_for_transformers(model.config, 300, tokenizer, tmp_path / "out")
    bridge = runpy.run_path(str(SCRIPT))["open_bridge"](tmp_path / "out")
    assert not [warning for warning in recwarn if "alias" in str(warning.message)]
    tokens_bt = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))
    logits_btv, cache = bridge.run_with_cache(tokens_bt)
    record = Record({*model.config.node_sites, Site.ATTN_PATTERN})
    expected_btv, streams = with_residuals(model, tokens_bt, record)
    torch.testing.assert_close(logits_btv, expected_btv, rtol=0, atol=1e-4)
    for (site, layer), x in record.values.items():
        part = "attn" if site.startswith("attn") else "mlp"
        torch.testing.assert_close(cache[f"blocks.{layer}.{part}.{site}.hook_out"], x, rtol=0, atol=1e-4)
    for layer in range(2):
        for i, name in enumerate(("hook_resid_pre", "hook_resid_mid", "hook_resid_post")):
            torch.testing.assert_close(cache[f"blocks.{layer}.{name}"], streams[2 * layer + i])
    zero = [("blocks.1.mlp.mlp_neuron.hook_out", lambda x, hook: x * 0)]
    zeroed_btv = model(tokens_bt, at_site(Site.MLP_NEURON, 1, torch.zeros_like))
    torch.testing.assert_close(
        bridge.run_with_hooks(tokens_bt, fwd_hooks=zero), zeroed_btv, rtol=0, atol=1e-4
    )
