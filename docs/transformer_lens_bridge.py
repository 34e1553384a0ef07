"""Open an exported model as a TransformerBridge of TransformerLens; nothing of sparsity_lab is needed.

    python -m sparsity_lab.export RUN OUT --layout transformers
    python docs/transformer_lens_bridge.py OUT "for item in"

Every site has a hook, as `blocks.0.attn.attn_q.hook_out`, with the values that sparsity_lab gives it: (batch,
time, channels), after AbsTopK. The usual names of the residual stream work too: `hook_resid_pre`,
`hook_resid_mid`, `hook_resid_post`, `hook_attn_out`, `hook_mlp_out`. Per-head names (`hook_q`, `hook_z`) and
the processing of weights (folding norms, centring) are left out: both would change what AbsTopK keeps.
"""

import sys

from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import (
    BlockBridge,
    EmbeddingBridge,
    LinearBridge,
    UnembeddingBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = "SparsityLabForCausalLM"
ATTENTION = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_pattern", "attn_out")


class Block(BlockBridge):
    """A layer, with those of the usual names that mean the same here."""

    hook_aliases = {  # noqa: RUF012 - the form of the library
        "hook_resid_pre": "hook_in",
        "hook_resid_mid": "resid_post_attn.hook_out",
        "hook_resid_post": "hook_out",
        "hook_attn_out": "attn.attn_out.hook_out",
        "hook_mlp_out": "mlp.mlp_out.hook_out",
    }


class Adapter(ArchitectureAdapter):
    """Where TransformerLens finds the parts of the model. A LinearBridge hooks any module as it is."""

    def __init__(self, cfg):
        super().__init__(cfg)
        mlp = (
            ("mlp_in", "mlp_gate", "mlp_neuron", "mlp_out")
            if cfg.gated_mlp
            else ("mlp_in", "mlp_neuron", "mlp_out")
        )
        self.component_mapping = {
            "embed": EmbeddingBridge(name="embedding"),
            "blocks": Block(
                name="blocks",
                submodules={
                    "ln1": LinearBridge(name="attention.read.norm"),
                    "attn": GeneralizedComponent(name="attention", submodules=sites(*ATTENTION)),
                    "ln2": LinearBridge(name="mlp.read.norm"),
                    "mlp": GeneralizedComponent(name="mlp", submodules=sites(*mlp)),
                    **sites("resid_post_attn"),
                },
            ),
            "ln_final": LinearBridge(name="norm"),
            "unembed": UnembeddingBridge(name="unembedding"),
        }


def sites(*names):
    return {name: LinearBridge(name=name) for name in names}


def open_bridge(folder) -> TransformerBridge:
    """Load an export as a bridge, which runs the exported code with TransformerLens's hooks inside."""
    ArchitectureAdapterFactory.register_adapter(NAME, Adapter)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return build_bridge_from_module(model, NAME, hf_config=model.config, tokenizer=tokenizer)


if __name__ == "__main__":
    bridge = open_bridge(sys.argv[1])
    logits, cache = bridge.run_with_cache(bridge.tokenizer(sys.argv[2], return_tensors="pt")["input_ids"])
    for name, value in cache.items():
        sys.stdout.write(f"{name} {tuple(value.shape)}\n")
    sys.stdout.write(f"next: {bridge.tokenizer.decode([logits[0, -1].argmax().item()])!r}\n")
