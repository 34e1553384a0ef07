"""The narrowed model computes what the whole one does under the same ablation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from micro import random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.mask_learning import gate_nodes
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.sparsity.magnitude import project


def sparse_model(**changes: Any) -> Transformer:
    """A small model with a tenth of its weights."""
    model = small_model(**changes)
    for weight, axis in model.sparse_weights().values():
        project(weight, 0.1, axis, at_least=1)
    return model


MODELS = [small_model, sparse_model]
VARIANTS = [
    {"activation_fraction": 1.0},
    {"activation_fraction": 0.25},
    {"activation_fraction": 1.0, "attention_sink": False, "bigram": "none"},
    {"positions": "concatenated", "d_pos": 4},
    {"norm": "layer", "bias": False, "tied_embeddings": True, "activation": "relu"},
]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("make", MODELS)
def test_compacted_logits_equal_the_whole_models_under_the_same_ablation(
    make: Callable[..., Transformer], changes: dict[str, Any], share: float
) -> None:
    model, tokens_bt = make(**changes), random_tokens(4, 9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layout, means_n = NodeLayout(model.config), mean_activations(model, [random_tokens(9, 9, seed=1)])
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        live_n = torch.rand(layout.size, generator=generator) < share
        # what is kept may be less than what is live
        kept_n = live_n & (torch.rand(layout.size, generator=generator) < 0.8)
        for mask_n in (live_n, kept_n):
            tap = ablate(layout, mask_n, means_n)
            expected = model(tokens_bt, tap)
            torch.testing.assert_close(
                compact(model, live_n, means_n)(tokens_bt, tap), expected, rtol=1e-4, atol=1e-4
            )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("make", MODELS)
def test_gates_have_the_gradients_that_they_have_in_the_whole_model(make: Callable[..., Transformer]) -> None:
    model, tokens_bt = make(), random_tokens(4, 9)
    layout, means_n = NodeLayout(model.config), mean_activations(model, [random_tokens(9, 9, seed=1)])
    live_n = torch.rand(layout.size, generator=torch.Generator().manual_seed(0)) < 0.5

    def slopes(narrow: Transformer) -> Tensor:
        tau_n = torch.where(live_n, 0.5, -1.0).requires_grad_()
        narrow(tokens_bt, gate_nodes(layout, tau_n, means_n, 1.0)).square().sum().backward()
        assert tau_n.grad is not None
        return tau_n.grad[live_n]

    torch.testing.assert_close(slopes(compact(model, live_n, means_n)), slopes(model), rtol=1e-3, atol=1e-4)


def test_a_model_in_half_precision_can_be_compacted() -> None:
    model, tokens_bt = small_model(activation_fraction=1.0).bfloat16(), random_tokens(4, 9)
    layout, means_n = NodeLayout(model.config), mean_activations(model, [random_tokens(9, 9, seed=1)])
    kept_n = torch.arange(layout.size) % 3 == 0
    tap = ablate(layout, kept_n, means_n)
    narrow = compact(model, kept_n, means_n)(tokens_bt, tap)
    torch.testing.assert_close(narrow, model(tokens_bt, tap), rtol=0.1, atol=0.2)


def test_the_model_does_become_narrower_and_the_original_does_not() -> None:
    model: Any = small_model()
    layout = NodeLayout(model.config)
    live_n = torch.ones(layout.size, dtype=torch.bool)
    live_n[layout.slices[Site.MLP_NEURON, 1]] = torch.arange(24) < 5
    narrow: Any = compact(model, live_n, torch.zeros(layout.size))
    assert narrow.blocks[1].mlp.down.weight_oi.shape == (16, 5)
    assert narrow.blocks[1].mlp.up is model.blocks[1].mlp.up
    assert model.blocks[1].mlp.down.weight.shape == (16, 24)
    assert narrow.blocks[0].mlp.down is model.blocks[0].mlp.down


def test_a_sublayer_that_writes_only_constants_is_gone_and_one_always_stays() -> None:
    model: Any = small_model()
    layout, tokens_bt = NodeLayout(model.config), random_tokens(4, 9)
    means_n = mean_activations(model, [random_tokens(9, 9, seed=1)])
    live_n = torch.zeros(layout.size, dtype=torch.bool)
    for site in (Site.ATTN_IN, Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V, Site.ATTN_OUT):
        live_n[layout.slices[site, 0]] = True
    live_n[layout.slices[Site.MLP_NEURON, 1]] = True  # without effect: what this MLP writes is frozen
    narrow: Any = compact(model, live_n, means_n)
    kinds = [type(sublayer).__name__ for b in narrow.blocks for sublayer in (b.attention, b.mlp)]
    assert kinds == ["Attention", "Constant", "Constant", "Constant"]
    tap = ablate(layout, live_n, means_n)
    torch.testing.assert_close(narrow(tokens_bt, tap), model(tokens_bt, tap), rtol=1e-4, atol=1e-4)
    nothing: Any = compact(model, torch.zeros_like(live_n), means_n)
    assert not any(type(m).__name__ == "Constant" for m in nothing.modules())
